"""Batches that the server runs: rows cut into files, submitted as jobs, and merged."""
