"""A streamed answer: bytes to events, events to chunks, chunks to a completion."""
