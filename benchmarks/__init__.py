"""How fast konko_async is, beside its rivals; see docs/explanation/benchmarks.md."""
