"""Answers of a type or schema: checked, requested again with what was wrong, and stored."""
