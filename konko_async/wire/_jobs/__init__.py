"""Files on the server, and batches that the server runs over them."""
