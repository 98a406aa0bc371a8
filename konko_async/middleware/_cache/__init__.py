"""Answers that are kept and used again: the cache, its database, and the layer of a call."""
