"""Everything that touches aiohttp: sessions, connections, and failures mapped to our errors."""
