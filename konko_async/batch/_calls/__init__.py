"""Making the calls of rows: one attempt, the pace of the run, and what an error means to it."""
