"""Which addresses are this machine's own: who may be sent a key in plain http, who may listen."""

from __future__ import annotations

import ipaddress

__all__ = ["is_loopback"]


def is_loopback(host: str) -> bool:
    """Whether an address (or ``localhost``) is this machine's own.

    Any other name may resolve to any address, so it counts as one that others can reach.
    """
    if host == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    # A socket that listens on IPv6 as well reports 127.0.0.1 as ::ffff:127.0.0.1.
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback
