"""What every layer shares: requests and policies as values, configuration, secrets, deadlines."""
