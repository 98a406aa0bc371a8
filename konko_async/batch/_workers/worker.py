"""The worker's side: rows in, calls, lines out."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable
from typing import Any

from konko_async import AsyncKonko, KonkoError
from konko_async.batch._calls.caller import AnsweredRow, CallSettings, RowCaller
from konko_async.batch._input.row_parser import Row
from konko_async.batch._row_timing import call_seconds, note_seconds
from konko_async.batch._workers.protocol import Message
from konko_async.remote import RemoteLimiter, unpack_client

__all__ = ["Worker"]


class Worker:
    """Makes the calls of the rows that it is sent; requests a permit for each attempt.

    Args:
        send: sends a message to the run.
    """

    def __init__(self, send: Callable[[Message], object]) -> None:
        self._send = send
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._client: AsyncKonko | None = None
        self._caller: RowCaller | None = None
        self._limiter: RemoteLimiter | None = None
        self._handlers: dict[str, Callable[..., object]] = {
            "hello": self._hello,
            "row": self._row,
            "cancel": self._cancel,
            "grant": self._grant,
            "refuse": self._refuse,
        }

    def hear(self, messages: list[Message]) -> None:
        """Take in messages of the run, in the loop's thread."""
        handlers = self._handlers
        for kind, *rest in messages:
            handlers[kind](*rest)

    async def close(self) -> None:
        """Cancel what runs and close the client."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        if self._client is not None:
            await self._client.close()

    def _hello(self, packed: bytes, settings: CallSettings) -> None:
        try:
            self._client, self._limiter = unpack_client(packed, self._send, [self._observe])
        except KonkoError as error:
            self._send(("broken", error))
            return
        self._caller = RowCaller(self._client, settings)
        self._send(("ready",))

    def _observe(self, record: Any) -> None:
        seconds = call_seconds(record)
        if seconds is not None:
            note_seconds(seconds)
        self._send(("record", record))

    def _row(self, index: int, *fields: Any) -> None:
        row = Row(index, *fields)
        task = asyncio.get_running_loop().create_task(self._work(row))
        self._tasks[index] = task

    async def _work(self, row: Row) -> None:
        assert self._caller is not None  # noqa: S101 - a hello goes before all rows
        index = row.index
        try:
            # The line is made here, so that encoding is spread over the processes too.
            answer = AnsweredRow.of(row, await self._caller(row))
        except asyncio.CancelledError:
            pass  # nobody waits for it
        except Exception as error:  # noqa: BLE001 - it is raised on the other side
            self._send(("failed", index, _portable(error)))
        else:
            self._send(("done", index, answer.line, answer.used))
        finally:
            del self._tasks[index]

    def _cancel(self, index: int) -> None:
        task = self._tasks.get(index)
        if task is not None:
            task.cancel()

    def _grant(self, number: int) -> None:
        if self._limiter is not None:
            self._limiter.granted(number)

    def _refuse(self, number: int, error: BaseException) -> None:
        if self._limiter is not None:
            self._limiter.refused(number, error)


def _portable(error: Exception) -> Exception:
    """Return an error that can be sent: itself, or what it says."""
    try:
        # Some errors can be pickled and not be loaded: only trying both shows it.
        pickle.loads(pickle.dumps(error))  # noqa: S301 - our own bytes
    except Exception:  # noqa: BLE001 - whatever somebody's class does
        kind = KonkoError if isinstance(error, KonkoError) else RuntimeError
        return kind(f"{type(error).__name__}: {error}")
    return error
