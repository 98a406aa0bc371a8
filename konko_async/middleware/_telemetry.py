"""What a call leaves behind: its history on errors, records for observers, lines in the log.

No prompt, answer or key appears in any of them.
"""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from typing import TYPE_CHECKING

from konko_async._records import Attempt, CallRecord
from konko_async.errors import KonkoError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from konko_async._pipeline import Handler, Request, Response
    from konko_async._records import Observer, StoreRecord

__all__ = ["AttemptLog", "Telemetry", "notify"]

_log = logging.getLogger("konko_async")
_log.addHandler(logging.NullHandler())  # a library says nothing unless its user asks it to
_MESSAGE_LIMIT = 500


def notify(observers: Sequence[Observer], record: CallRecord | Attempt | StoreRecord) -> None:
    """Give observers a record; what one of them raises is logged."""
    for observer in observers:
        try:
            observer(record)  # type: ignore[arg-type]  # one that says so itself may know two kinds
        except Exception:  # noqa: BLE001 - an observer must not break the call it observes
            _log.exception("an observer failed")


class Telemetry:
    """Around the whole of a call: one record for observers, and the history on what it raises.

    Args:
        observers: called with each record.
        base_url: named in the records.
    """

    __slots__ = ("_base_url", "_observers")

    def __init__(self, observers: Sequence[Observer], base_url: str) -> None:
        self._observers = tuple(observers)
        self._base_url = base_url

    def answered(self, request: Request, response: Response, started_at: float) -> None:
        """Tell observers when the answer has been read or given up.

        Args:
            request: the call's first.
            response: its answer.
            started_at: wall clock, seconds since 1970, at which the call began.
        """
        if not self._observers:
            return
        if response.closed:
            self._ended(request, started_at, response)
        else:
            # Prompts may be long, and streams many and open for long.
            request = request.replace(params=None, content=b"")
            response.on_close(partial(self._ended, request, started_at))

    def _ended(self, request: Request, started_at: float, response: Response) -> None:
        self._record(request, started_at, response, response.outcome, None)

    def failed(self, request: Request, error: BaseException, started_at: float) -> None:
        """Write down how a call ended, and on the error what was tried.

        Args:
            request: the call's first.
            error: what it raises, also from the user's own middleware.
            started_at: as for :meth:`answered`.
        """
        call = request.call
        if isinstance(error, asyncio.CancelledError):
            error.add_note(
                f"konko_async: {request.operation.name} ({request.model}) was {call.doing}"
            )
            self._record(request, started_at, None, "cancelled", "CancelledError")
            return
        if isinstance(error, KonkoError):
            error.attempts = tuple(call.attempts)
        _log.debug(
            "%s of %s failed after %d attempts: %s",
            request.operation.name, request.model, len(call.attempts), type(error).__name__,
        )  # fmt: skip
        self._record(request, started_at, None, "error", type(error).__name__)

    def _record(
        self,
        request: Request,
        started_at: float,
        response: Response | None,
        outcome: str,
        error_type: str | None,
    ) -> None:
        if not self._observers:
            return
        call = request.call
        usage = None if response is None else response.usage
        first = None if response is None else response.first_token_at
        record = CallRecord(
            operation=request.operation.name,
            base_url=self._base_url,
            model=request.model,
            response_model=None if response is None else response.model,
            stream=request.stream,
            priority=request.priority,
            started_at=started_at,
            duration=asyncio.get_running_loop().time() - call.started,
            queued=call.queued,
            time_to_first_token=None if first is None else first - call.started,
            prompt_tokens=None if usage is None else usage.prompt_tokens,
            completion_tokens=None if usage is None else getattr(usage, "completion_tokens", None),
            attempts=tuple(call.attempts),
            outcome=outcome,  # type: ignore[arg-type]  # one of the four that Response knows
            error_type=error_type or (None if response is None else response.error_type),
            request_id=None if response is None else response.request_id,
        )
        notify(self._observers, record)


class AttemptLog:
    """Inside retry and hedging: one record per attempt, kept on the call.

    Args:
        observers: called with each record.
    """

    __slots__ = ("_observers",)

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = tuple(observers)

    async def __call__(self, request: Request, call_next: Handler) -> Response:
        """Run the attempt and write down how it went."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            response = await call_next(request)
        except BaseException as error:
            self.write(request, started, loop.time(), None, error)
            raise
        self.write(request, started, loop.time(), response, None)
        return response

    def write(
        self,
        request: Request,
        started: float,
        ended: float,
        response: Response | None,
        error: BaseException | None,
    ) -> None:
        """Write down how an attempt went.

        Args:
            request: the attempt's.
            started: ``loop.time()``.
            ended: ``loop.time()``.
            response: the answer; None if it failed.
            error: what it raised, or None.
        """
        call = request.call
        call.queued += request.queued
        status = getattr(error, "status_code", None) if response is None else response.status
        message = getattr(error, "message", None)
        record = Attempt(
            number=request.attempt,
            model=request.model,
            started=started - call.started,
            duration=ended - started,
            queued=request.queued,
            connect=request.connect,
            first_token=ended - started if response is not None and request.stream else None,
            status_code=status,
            error_type=None if error is None else type(error).__name__,
            error=None if message is None else message[:_MESSAGE_LIMIT],
            hedge=request.hedge,
        )
        call.attempts.append(record)
        if error is not None:
            _log.debug(
                "attempt %d of %s %s failed: %s",
                record.number, request.operation.name, request.model, record.error_type,
            )  # fmt: skip
        if self._observers:
            notify(self._observers, record)
