"""Start-up and shutdown of a relay inside each web framework."""
