"""One row to one call."""

from __future__ import annotations

import asyncio
import random
from typing import Any, Final

import msgspec

from konko_async import (
    AsyncKonko,
    AuthenticationError,
    CircuitOpenError,
    KonkoError,
    RateLimitError,
)
from konko_async.batch._errors import BatchError
from konko_async.batch._lines import success_line
from konko_async.batch._rows import Row
from konko_async.middleware import resting

__all__ = ["Answer", "Caller", "Patience", "ends_all"]

_LONGEST_WAIT: Final = 30.0


def _is_spent(error: KonkoError) -> bool:
    """Whether the key's credit is used up."""
    return isinstance(error, RateLimitError) and error.code == "insufficient_quota"


def ends_all(error: KonkoError) -> bool:
    """Whether an error is sure to meet every other row too: then none of them is spent on it."""
    if isinstance(error, RateLimitError):
        return _is_spent(error)
    return isinstance(error, (AuthenticationError, BatchError, CircuitOpenError))


class Answer(msgspec.Struct, gc=False):
    """The answer to a row.

    Attributes:
        line: of the output.
        prompt_tokens: that it used.
        completion_tokens: likewise.
        told: whether the server told what it used.
    """

    line: bytes
    prompt_tokens: int = 0
    completion_tokens: int = 0
    told: bool = False

    @classmethod
    def of(cls, row: Row, completion: Any) -> Answer:
        """Make it of what the call returned."""
        usage, line = completion.usage, success_line(row, completion)
        if usage is None:
            return cls(line, 0, 0, False)
        return cls(line, usage.prompt_tokens, getattr(usage, "completion_tokens", 0), True)


class Patience:
    """Waits out what a repetition may mend; a batch has time.

    Without it, an outage of seconds, or a burst of 429s that used up the budget of retries, would
    fail all rows.

    Args:
        max_outage: for how many seconds a row waits, while the circuit breaker lets nothing
            through or the server answers with 429, before its error is final.
    """

    def __init__(self, max_outage: float) -> None:
        self._left = max_outage
        self._waited = 0.0

    async def wait(self, error: CircuitOpenError | RateLimitError) -> None:
        """Wait until it is worth while to try again: as asked, or as long again as it has waited.

        Raises:
            KonkoError: the error, if it is final.
        """
        asked = error.retry_after
        wait = min(max(1.0, self._waited), _LONGEST_WAIT) if asked is None else max(asked, 0.1)
        wait *= random.uniform(1.0, 1.2)  # noqa: S311 - spreads the herd
        if _is_spent(error) or wait > self._left:
            raise error
        with resting():
            await asyncio.sleep(wait)
        self._left -= wait
        self._waited += wait


class Caller:
    """Makes the calls of rows, with the priority "batch".

    The body goes out as it stands in the input, with what this client has no name for. A row that
    asks for a stream is streamed, and its whole answer returned.

    Args:
        client: makes them.
        max_outage: see :class:`Patience`.
    """

    def __init__(self, client: AsyncKonko, *, max_outage: float) -> None:
        self._client = client
        self._max_outage = max_outage

    async def __call__(self, row: Row) -> Any:
        """Return what the call returned; :meth:`Answer.of` makes a line of it.

        Raises:
            KonkoError: what the call failed with.
        """
        patience: Patience | None = None
        while True:
            try:
                return await self._call(row)
            except (CircuitOpenError, RateLimitError) as error:
                refused = error
            if patience is None:
                patience = Patience(self._max_outage)
            await patience.wait(refused)

    async def _call(self, row: Row) -> Any:
        body, client = row.body, self._client
        model = body["model"]
        if row.url == "/v1/embeddings":
            # As the server would send it by itself; the client's own default is base64.
            extra = {"encoding_format": "float", **body}
            return await client.embeddings.create(
                model=model, input=body["input"], priority="batch", extra_body=extra
            )
        if body.get("stream"):
            return await self._streamed(row, model)
        if row.url == "/v1/completions":
            return await client.completions.create(
                model=model, prompt=body["prompt"], priority="batch", extra_body=body
            )
        return await client.chat.completions.create(
            model=model, messages=body["messages"], priority="batch", extra_body=body
        )

    async def _streamed(self, row: Row, model: str) -> Any:
        body, client = row.body, self._client
        # A stream tells what it used only when asked.
        options = {"include_usage": True, **(body.get("stream_options") or {})}
        extra = {**body, "stream_options": options}
        stream: Any
        if row.url == "/v1/completions":
            stream = client.completions.stream(
                model=model, prompt=body["prompt"], priority="batch", extra_body=extra
            )
        else:
            stream = client.chat.completions.stream(
                model=model, messages=body["messages"], priority="batch", extra_body=extra
            )
        async with stream:
            return await stream.completion()
