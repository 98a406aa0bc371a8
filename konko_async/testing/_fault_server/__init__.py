"""The fault server: raw sockets that send any bytes, in any pieces, at any time."""
