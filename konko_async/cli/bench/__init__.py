"""``konko-async bench``: measurements of a server, as tables and plots."""
