"""Batches whose calls are made by other processes or machines."""
