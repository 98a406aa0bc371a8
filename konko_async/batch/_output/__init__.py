"""Writing the output of a batch and its journal, so that a crash loses nothing."""
