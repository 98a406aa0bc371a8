"""What you need to test an application that talks to the Konko API, or to any server like it."""

from konko_async.testing._answer import Answer
from konko_async.testing._fault_server import Connections, FaultServer
from konko_async.testing._loop import (
    DeadlockError,
    TimeJumpingLoop,
    jumping_time,
    run_with_jumping_time,
)
from konko_async.testing._raw_request import ReceivedRequest

__all__ = [
    "Answer",
    "Connections",
    "DeadlockError",
    "FaultServer",
    "ReceivedRequest",
    "TimeJumpingLoop",
    "jumping_time",
    "run_with_jumping_time",
]
