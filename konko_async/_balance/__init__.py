"""Many servers, many keys: which endpoint each attempt goes to."""
