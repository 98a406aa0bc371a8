"""A client in other processes, whose limits are kept by the process that it came from.

:func:`pack_client` makes bytes of a client's settings and policies, :func:`unpack_client` a client
of them, whose every attempt asks for leave (:class:`RemoteLimiter`); :class:`Admission` grants it
out of the first client's limits. So there is exactly one limit, whatever the number of processes,
and retries and cool-downs reach it like all else. What carries the messages is for the caller to
choose; see :mod:`konko_async.batch`.
"""

from konko_async.remote._admission import Admission
from konko_async.remote._limiter import RemoteLane, RemoteLimiter, RemotePermit
from konko_async.remote._pack import pack_client, unpack_client

__all__ = [
    "Admission",
    "RemoteLane",
    "RemoteLimiter",
    "RemotePermit",
    "pack_client",
    "unpack_client",
]
