"""The faults that an emulator can inject: values for `Emulator.script()` and `Emulator.always()`.

`Fault` has the table of them. `Quirks` are the ways in which real servers differ without being
wrong; the others are failures. For faults below HTTP (cuts at any byte, lying lengths, broken chunk
sizes) there is `konko_async.testing.FaultServer`.
"""

from konko_async.testing._emulator.faults import (
    Cut,
    Delay,
    EmptyBody,
    ErrorInStream,
    Fault,
    GzipBomb,
    InvalidUTF8,
    MalformedJSON,
    Redirect,
    Stall,
    Status,
    WrongContentType,
)
from konko_async.testing._emulator.quirks import Quirks
from konko_async.testing._emulator.reply import Hangup, Pause, Reply

__all__ = [
    "Cut",
    "Delay",
    "EmptyBody",
    "ErrorInStream",
    "Fault",
    "GzipBomb",
    "Hangup",
    "InvalidUTF8",
    "MalformedJSON",
    "Pause",
    "Quirks",
    "Redirect",
    "Reply",
    "Stall",
    "Status",
    "WrongContentType",
]
