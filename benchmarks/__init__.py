"""How fast konko_async is, beside its rivals; see docs/benchmarks.md."""
