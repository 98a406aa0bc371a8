"""Limits that several processes share through a store, such as Redis."""
