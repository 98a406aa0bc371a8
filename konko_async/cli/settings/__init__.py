"""What the user sets once: a configuration file, shell completion."""
