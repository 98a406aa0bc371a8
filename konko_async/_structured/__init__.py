"""Typed answers: a type's JSON Schema, and the answer's JSON read as that type."""
