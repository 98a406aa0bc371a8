"""Where the relay keeps streams, so that readers can resume them."""
