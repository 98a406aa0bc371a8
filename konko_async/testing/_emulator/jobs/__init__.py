"""Files, and batches that the emulator runs over them."""
