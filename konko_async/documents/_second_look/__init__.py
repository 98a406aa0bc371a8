"""Readers of our own that are held against kreuzberg's: where it loses words, theirs is taken."""
