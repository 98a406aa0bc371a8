"""Runs one batch: validates its file, answers its rows, and writes what came of them."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec

from konko_async.testing._emulator.errors import ApiError, error_object
from konko_async.testing._emulator.jobs.settings import BatchSettings
from konko_async.testing._emulator.log import loop_time

_encode: Final = msgspec.json.Encoder().encode
_decode: Final = msgspec.json.Decoder().decode
_SLICE: Final = 64  # rows between two looks at the clock and at the other tasks
_NAP: Final = 0.02  # seconds between two looks while the pace holds a batch back
_FIRST_PROBLEMS: Final = 20
_EXPIRED: Final = (
    "batch_expired", "This request could not be executed before the completion window expired."
)  # fmt: skip
_CANCELLED: Final = ("batch_cancelled", "This request was not executed: the batch was cancelled.")

AnswerRow = Callable[[str, dict[str, Any]], Awaitable[bytes]]


def now() -> int:
    """Unix seconds."""
    return int(time.time())


class BatchJob:
    """One batch.

    Attributes:
        shown: the batch object, as clients get it.
    """

    def __init__(
        self, shown: dict[str, Any], data: bytes, settings: BatchSettings, answer: AnswerRow
    ) -> None:
        self.shown = shown
        self._data = data
        self._settings = settings
        self._answer = answer
        self._began = loop_time()
        self.rows = data.count(b"\n") + (not data.endswith(b"\n"))
        self.good: list[bytes] = []
        self.bad: list[bytes] = []

    @property
    def ended(self) -> bool:
        """Whether its status will not change any more."""
        return self.shown["status"] in {"failed", "completed", "expired", "cancelled"}

    def _move(self, status: str) -> None:
        self.shown["status"] = status
        self.shown[f"{status}_at"] = now()

    def cancel(self) -> None:
        """Begin no further row."""
        if self.shown["status"] in {"validating", "in_progress"}:
            self._move("cancelling")

    async def run(self, queued: int) -> None:
        """Run to the end.

        Args:
            queued: rows of other batches that have not ended.
        """
        problems, rows = self._validate()
        most = self._settings.max_queued
        if not problems and most is not None and queued + len(rows) > most:
            text = f"Enqueued token limit reached: {queued} rows wait, {most} are allowed."
            problems = [_problem("token_limit_exceeded", text, None)]
        if problems:
            self.shown["errors"] = {"object": "list", "data": problems[:_FIRST_PROBLEMS]}
            self._move("failed")
            return
        self.shown["request_counts"]["total"] = len(rows)
        if self.shown["status"] != "cancelling":
            self._move("in_progress")
        left, why = await self._work(rows)
        for row in left:
            self._fail(row, None, {"code": why[0], "message": why[1]})
        if self._settings.reverse:
            self.good.reverse()

    def finish(self) -> None:
        """Set the last status; the files stand by now."""
        if self.shown["status"] == "cancelling":
            self._move("cancelled")
        elif any(b'"batch_expired"' in line for line in self.bad):
            self._move("expired")
        elif not self.ended:
            self._move("completed")

    def _validate(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        problems: list[dict[str, Any]] = []
        rows: list[dict[str, Any]] = []
        seen: set[str] = set()
        for line, text in enumerate(self._data.splitlines(), 1):
            if not text.strip():
                continue
            try:
                row = _decode(text)
            except (msgspec.DecodeError, UnicodeDecodeError):
                problems.append(_problem("invalid_json_line", "This line is not JSON.", line))
                continue
            problem = _check(row, self.shown["endpoint"], seen)
            if problem is not None:
                problems.append(_problem(*problem, line))
            rows.append(row)
        if not rows and not problems:
            problems.append(_problem("empty_file", "The file has no requests.", None))
        if len(rows) > self._settings.max_rows:
            text_ = f"The file has {len(rows)} requests; {self._settings.max_rows} are allowed."
            problems = [_problem("too_many_requests", text_, None)]
        return problems, rows

    async def _work(
        self, rows: list[dict[str, Any]]
    ) -> tuple[list[dict[str, Any]], tuple[str, str]]:
        """Answer the rows; returns those that are left, and why."""
        for place, row in enumerate(rows):
            if place % _SLICE == 0:
                await asyncio.sleep(0)
            await self._pace(place)
            if self.shown["status"] == "cancelling":
                return rows[place:], _CANCELLED
            if self._late():
                return rows[place:], _EXPIRED
            await self._row(row)
        return [], _EXPIRED

    def _late(self) -> bool:
        window = self._settings.window
        return window is not None and loop_time() - self._began > window

    async def _pace(self, done: int) -> None:
        # Looked at again and again, as a test may change the pace, or cancel the batch, meanwhile.
        while self.shown["status"] == "in_progress" and not self._late():
            rate = self._settings.rows_per_second
            if rate is None or done + 1 <= (loop_time() - self._began) * rate:
                return
            await asyncio.sleep(_NAP)

    async def _row(self, row: dict[str, Any]) -> None:
        outcome = None if self._settings.outcome is None else self._settings.outcome(row)
        if outcome == "lost":
            return
        if outcome == "expired":
            self._fail(row, None, {"code": _EXPIRED[0], "message": _EXPIRED[1]})
            return
        try:
            if isinstance(outcome, int):
                raise ApiError(outcome)  # noqa: TRY301 - handled as the errors of _answer()
            body = await self._answer(row["url"], row["body"])
        except ApiError as error:
            self._fail(row, error.status, None, error.body)
            return
        self.shown["request_counts"]["completed"] += 1
        self.good.append(self._line(row, 200, body, None))

    def _fail(
        self,
        row: dict[str, Any],
        status: int | None,
        error: dict[str, str] | None,
        body: bytes | None = None,
    ) -> None:
        self.shown["request_counts"]["failed"] += 1
        if status is not None and body is None:
            body = _encode({"error": error_object(status)})
        self.bad.append(self._line(row, status, body, error))

    def _line(
        self, row: dict[str, Any], status: int | None, body: bytes | None, error: Any
    ) -> bytes:
        number = len(self.good) + len(self.bad)
        response = None
        if status is not None and body is not None:
            request_id = f"{self.shown['id']}_{number}"
            response = {
                "status_code": status,
                "request_id": request_id,
                "body": msgspec.Raw(body),
            }
        return _encode(
            {
                "id": f"batch_req_{self.shown['id'].removeprefix('batch_')}{number:08x}",
                "custom_id": row["custom_id"],
                "response": response,
                "error": error,
            }
        )


def _problem(code: str, message: str, line: int | None) -> dict[str, Any]:
    return {"code": code, "message": message, "param": None, "line": line}


def _check(  # noqa: PLR0911 - a table, read from top to bottom
    row: Any, endpoint: str, seen: set[str]
) -> tuple[str, str] | None:
    """Return the code and text of what is wrong with a row."""
    if not isinstance(row, dict):
        return "invalid_json_line", "A line must be an object."
    custom_id = row.get("custom_id")
    if not isinstance(custom_id, str) or not custom_id:
        return "missing_required_parameter", "A line has no custom_id."
    if custom_id in seen:
        return "duplicate_custom_id", f"The custom_id {custom_id[:60]!r} comes twice."
    seen.add(custom_id)
    if row.get("method") != "POST":
        return "invalid_method", "The method must be POST."
    if row.get("url") != endpoint:
        return "mismatched_endpoint", f"The url must be {endpoint}, the batch's endpoint."
    body = row.get("body")
    if not isinstance(body, dict):
        return "invalid_request", "A line has no body."
    if body.get("stream"):
        return "invalid_request", "A batch cannot stream."
    return None


async def end(task: asyncio.Task[None]) -> None:
    """Cancel a batch's task, and wait for its end."""
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.wait([task])
