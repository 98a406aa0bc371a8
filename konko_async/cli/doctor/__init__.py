"""``konko-async doctor``: finds out why calls do not work, and what to do about it."""
