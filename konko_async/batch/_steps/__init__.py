"""Several prompts for each row, each with the answers before it."""
