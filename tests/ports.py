"""Ports for servers that cannot be told to take a free one and say which."""

import random
import socket

# Below those that Linux gives to whoever asks for any: such a port may be somebody else's by the time
# that a server of another process binds it. Nodes of a Redis cluster use the one 10,000 above, too.
_PLACES = range(10_000, 20_000)


def free_port():
    """A port of the loopback address that nobody listens on."""
    chance = random.SystemRandom()
    while True:
        port = chance.choice(_PLACES)
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
