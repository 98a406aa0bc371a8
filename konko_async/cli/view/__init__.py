"""``konko-async view``."""
