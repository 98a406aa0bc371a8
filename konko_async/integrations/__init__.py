"""Engines of others: each module needs an extra of the same name, and none is loaded unasked."""
