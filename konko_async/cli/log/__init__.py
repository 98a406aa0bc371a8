"""Conversations that are kept, and ``konko-async log``."""
