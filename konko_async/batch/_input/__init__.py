"""Reading the input of a batch: open, split, parse, validate."""
