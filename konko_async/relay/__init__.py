"""A streamed answer to browsers: as server-sent events, safely, and resumable."""
