"""Options of the command batch that go together, and what is done with them."""
