"""Servers, faults and a virtual clock to test applications that call chat servers.

`Emulator` speaks the API, and `faults` holds the failures that it can inject; `FaultServer` sends
raw bytes; `dialects` draws what servers send; `jumping_time` makes time pass at once. Nothing is
imported before it is used, because pytest loads this package for everyone who has `konko_async`
installed.
"""

from typing import TYPE_CHECKING

from konko_async._core.lazy_names import lazy_names

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
else:
    __getattr__, __dir__ = lazy_names(
        __name__,
        {
            "_emulator.content.from_prompt": "answer_from_prompt",
            "_emulator.emulator": "Emulator",
            "_emulator.jobs.settings": "BatchSettings",
            "_emulator.log": "RequestRecord",
            "_fault_server.answer": "Answer",
            "_fault_server.request": "ReceivedRequest",
            "_fault_server.server": "Connections FaultServer",
            "_in_thread": "EmulatorInThread",
            "_simulated_time": "DeadlockError TimeJumpingLoop jumping_time run_with_jumping_time",
            "dialects": "dialects",
            "faults": "faults",
        },
    )

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
