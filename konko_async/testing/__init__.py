"""What you need to test an application that talks to the Konko API, or to any server like it.

`Emulator` speaks the API, and `faults` holds what it can be told to do wrong; `FaultServer` sends
raw bytes; `jumping_time` makes time pass at once. Nothing is imported before it is used, because
pytest loads this package for everyone who has `konko_async` installed.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from konko_async.testing import faults
    from konko_async.testing._answer import Answer
    from konko_async.testing._emulator import Emulator
    from konko_async.testing._emulator_log import RequestRecord
    from konko_async.testing._fault_server import Connections, FaultServer
    from konko_async.testing._loop import (
        DeadlockError,
        TimeJumpingLoop,
        jumping_time,
        run_with_jumping_time,
    )
    from konko_async.testing._raw_request import ReceivedRequest

# Where each name comes from; a test holds this against the imports above.
_EXPORTS = {
    "Answer": "_answer",
    "Connections": "_fault_server",
    "DeadlockError": "_loop",
    "Emulator": "_emulator",
    "FaultServer": "_fault_server",
    "ReceivedRequest": "_raw_request",
    "RequestRecord": "_emulator_log",
    "TimeJumpingLoop": "_loop",
    "faults": "faults",
    "jumping_time": "_loop",
    "run_with_jumping_time": "_loop",
}

__all__ = [
    "Answer",
    "Connections",
    "DeadlockError",
    "Emulator",
    "FaultServer",
    "ReceivedRequest",
    "RequestRecord",
    "TimeJumpingLoop",
    "faults",
    "jumping_time",
    "run_with_jumping_time",
]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = import_module(f"{__name__}.{_EXPORTS[name]}")
    found = module if name == _EXPORTS[name] else getattr(module, name)
    # Once found it is an attribute like any other.
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
