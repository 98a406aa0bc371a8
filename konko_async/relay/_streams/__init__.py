"""One upstream call and its readers: sources of frames, fan-out, cancellation."""
