"""Servers, faults and a virtual clock to test applications that call chat servers.

`Emulator` speaks the API, and `faults` holds the failures that it can inject; `FaultServer` sends
raw bytes; `dialects` draws what servers send; `jumping_time` makes time pass at once. Nothing is
imported before it is used, because pytest loads this package for everyone who has `konko_async`
installed.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from konko_async.testing import dialects, faults
    from konko_async.testing._emulator.content.from_prompt import answer_from_prompt
    from konko_async.testing._emulator.emulator import Emulator
    from konko_async.testing._emulator.jobs.settings import BatchSettings
    from konko_async.testing._emulator.log import RequestRecord
    from konko_async.testing._fault_server.answer import Answer
    from konko_async.testing._fault_server.request import ReceivedRequest
    from konko_async.testing._fault_server.server import Connections, FaultServer
    from konko_async.testing._in_thread import EmulatorInThread
    from konko_async.testing._simulated_time import (
        DeadlockError,
        TimeJumpingLoop,
        jumping_time,
        run_with_jumping_time,
    )

# Where each name comes from; a test holds this against the imports above.
_EXPORTS = {
    "Answer": "_fault_server.answer",
    "BatchSettings": "_emulator.jobs.settings",
    "Connections": "_fault_server.server",
    "DeadlockError": "_simulated_time",
    "Emulator": "_emulator.emulator",
    "EmulatorInThread": "_in_thread",
    "FaultServer": "_fault_server.server",
    "ReceivedRequest": "_fault_server.request",
    "RequestRecord": "_emulator.log",
    "TimeJumpingLoop": "_simulated_time",
    "answer_from_prompt": "_emulator.content.from_prompt",
    "dialects": "dialects",
    "faults": "faults",
    "jumping_time": "_simulated_time",
    "run_with_jumping_time": "_simulated_time",
}

__all__ = [
    "Answer",
    "BatchSettings",
    "Connections",
    "DeadlockError",
    "Emulator",
    "EmulatorInThread",
    "FaultServer",
    "ReceivedRequest",
    "RequestRecord",
    "TimeJumpingLoop",
    "answer_from_prompt",
    "dialects",
    "faults",
    "jumping_time",
    "run_with_jumping_time",
]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Lazily, as the pytest plugin imports this package in every test session: an import of aiohttp
    # would slow down those that never use the emulator.
    module = import_module(f"{__name__}.{_EXPORTS[name]}")
    found = module if name == _EXPORTS[name] else getattr(module, name)
    # Once found it is an attribute like any other.
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
