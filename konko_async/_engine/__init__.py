"""The pipeline behind a client: endpoints, attempts, and many calls at once."""
