"""Makes one attempt at one row."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, Final

import msgspec

from konko_async import AsyncKonko
from konko_async.batch._errors import AnswerError
from konko_async.batch._input.row_parser import Row
from konko_async.batch._output.answers import Used, flaws, read_usage
from konko_async.batch._output.result_lines import success_line
from konko_async.batch._row_timing import time_row
from konko_async.batch._typed.asked import AskedBefore
from konko_async.batch._typed.typed_rows import MisfitAnswerError, RowType

__all__ = [
    "AnsweredRow",
    "CallSettings",
    "RowCaller",
    "TypedCompletion",
    "check_answer",
    "read_typed",
]


_NEVER_ANSWERS: Final = frozenset({"no_choices", "error"})
# In the order of their weight: an answer with several is reported by the first.
_FLAWS: Final = {
    "no_choices": "the answer has no choices",
    "error": 'the model broke off with an error (finish_reason "error")',
    "content_filter": "the answer was cut by a content filter",
    "refusal": "the model refused to answer",
    "empty": "the answer is empty",
    "length": "the answer was cut at max_tokens",
}


class AnsweredRow(msgspec.Struct, gc=False):
    """The answer to a row.

    Attributes:
        line: of the output.
        used: by the answer.
    """

    line: bytes
    used: Used

    @classmethod
    def of(cls, row: Row, completion: Any) -> AnsweredRow:
        """Make it of what the call returned."""
        if type(completion) is TypedCompletion:
            return cls._of_typed(row, completion)
        cached = completion.from_cache
        line, usage = success_line(row, completion, from_cache=cached)
        used = read_usage(usage, flaws(row.url, completion), from_cache=cached)
        used.seconds = row.seconds
        return cls(line, used)

    @classmethod
    def _of_typed(cls, row: Row, typed: TypedCompletion) -> AnsweredRow:
        more: dict[str, Any] = {}
        if typed.value is not msgspec.UNSET:
            more["value"] = typed.value
        if typed.steps is not None:
            more["steps"] = typed.steps
        completion, asked = typed.completion, typed.asked
        before = None if asked is None else asked.shown()
        cached = completion.from_cache
        line, usage = success_line(row, completion, more, before, from_cache=cached)
        used = read_usage(usage, flaws(row.url, completion), from_cache=cached)
        used.seconds = row.seconds
        if asked is not None:
            asked.add_to(used)
        return cls(line, used)


class TypedCompletion(msgspec.Struct, gc=False):
    """An answer that is of the type that the run asks for.

    Attributes:
        completion: the answer.
        value: what it says, as plain JSON.
        asked: what the answers before it used; None if it is the first.
        steps: the results of the row's steps, by their names.
    """

    completion: Any
    value: Any
    asked: AskedBefore | None = None
    steps: dict[str, Any] | None = None


def check_answer(completion: Any, found: tuple[str, ...], fail_on: frozenset[str]) -> None:
    """Refuse an answer that is none, or has a flaw that is not wanted.

    Args:
        completion: the answer.
        found: its flaws.
        fail_on: those that make it a failure, beside those of no answer at all.

    Raises:
        AnswerError: it has one of them.
    """
    for code, text in _FLAWS.items():
        if code in found and (code in _NEVER_ANSWERS or code in fail_on):
            raise AnswerError(
                text,
                code=code,
                retryable=code in _NEVER_ANSWERS,
                body=completion.raw,
                request_id=completion.request_id,
                usage=completion.usage,
            )


class CallSettings(msgspec.Struct, frozen=True):
    """What the callers of one run share, also those in other processes.

    Attributes:
        run: names the run in idempotency keys.
        fail_on: flaws of an answer that make it a failure.
        typed: what answers are to be; None: anything.
    """

    run: str
    fail_on: frozenset[str] = frozenset()
    typed: RowType | None = None


def read_typed(typed: RowType, completion: Any, *, retryable: bool = False) -> Any:
    """Return the value of an answer; that of its first choice, where it has several.

    Raises:
        AnswerError: it is not of the type.
    """
    body = completion.raw
    try:
        return typed.read(body["choices"][0]["message"].get("content") or "")
    except (MisfitAnswerError, LookupError, TypeError, AttributeError) as error:
        problem = str(error)
    raise AnswerError(
        f"the answer does not fit response_format: {problem}",
        code="misfit",
        retryable=retryable,
        body=body,
        request_id=completion.request_id,
        usage=completion.usage,
    )


class RowCaller:
    """Makes the calls of rows, with the priority "batch".

    The body goes out as it stands in the input, with what this client has no name for. A row that
    asks for a stream is streamed, and its whole answer returned. All attempts at a row in one run
    carry the same idempotency key: a server that knows it need not be paid twice.

    Args:
        client: makes them, one attempt each.
        settings: of the run.
    """

    def __init__(self, client: AsyncKonko, settings: CallSettings) -> None:
        self._client = client
        self._settings = settings

    def __call__(self, row: Row) -> Coroutine[Any, Any, Any]:
        """Return what the call returned; :meth:`AnsweredRow.of` makes a line of it.

        Raises:
            AnswerError: the answer has no choices, or a flaw that ``fail_on`` names.
            KonkoError: what the call failed with.
        """
        typed = self._settings.typed
        if typed is not None and typed.wanted(row.body):
            return self._typed(row, typed)
        return self._checked(row)

    async def _checked(self, row: Row) -> Any:
        completion = await self._call(row)
        found = flaws(row.url, completion)
        if found:
            check_answer(completion, found, self._settings.fail_on)
        # Not a line of the output yet: in this process it is made where it is written.
        return completion

    async def _typed(self, row: Row, typed: RowType) -> TypedCompletion:
        """Ask, and ask again with what was wrong, until the answer is of the type."""
        asked: AskedBefore | None = None
        first = row
        while True:
            completion = await self._checked(row)
            first.seconds = row.seconds
            try:
                return TypedCompletion(completion, read_typed(typed, completion), asked)
            except AnswerError as error:
                failure = error
            times = 0 if asked is None else asked.calls
            if times >= typed.max_reasks:
                if asked is not None:
                    failure.usage = asked.usage_with(completion.usage)
                raise failure
            asked = AskedBefore.after(asked, completion.usage)
            row = _corrected(row, completion.raw, failure)

    def _call(self, row: Row) -> Coroutine[Any, Any, Any]:
        # Not a coroutine of its own, as each costs a row half a microsecond, and the collector.
        time_row(row)
        body, client = row.body, self._client
        model = body["model"]
        headers = {"Idempotency-Key": f"{self._settings.run}-{row.index}"}
        if row.asked:  # another request, not the same again
            headers["Idempotency-Key"] += f"-{row.asked}"
        if row.url == "/v1/embeddings":
            # As the server would send it by itself; the client's own default is base64.
            extra = {"encoding_format": "float", **body}
            return client.embeddings.create(
                model=model,
                input=body["input"],
                priority="batch",
                extra_body=extra,
                extra_headers=headers,
            )
        if body.get("stream"):
            return self._streamed(row, model, headers)
        if row.url == "/v1/completions":
            return client.completions.create(
                model=model,
                prompt=body["prompt"],
                priority="batch",
                extra_body=body,
                extra_headers=headers,
            )
        return client.chat.completions.create(
            model=model,
            messages=body["messages"],
            priority="batch",
            extra_body=body,
            extra_headers=headers,
        )

    async def _streamed(self, row: Row, model: str, headers: dict[str, str]) -> Any:
        body, client = row.body, self._client
        # A stream reports what it used only when asked.
        options = {"include_usage": True, **(body.get("stream_options") or {})}
        extra = {**body, "stream_options": options}
        stream: Any
        if row.url == "/v1/completions":
            stream = client.completions.stream(
                model=model,
                prompt=body["prompt"],
                priority="batch",
                extra_body=extra,
                extra_headers=headers,
            )
        else:
            stream = client.chat.completions.stream(
                model=model,
                messages=body["messages"],
                priority="batch",
                extra_body=extra,
                extra_headers=headers,
            )
        async with stream:
            return await stream.completion()


def _corrected(row: Row, body: Any, error: AnswerError) -> Row:
    """Return the row with the answer that does not fit, and what is wrong with it."""
    said = body["choices"][0]["message"].get("content")
    answer = [{"role": "assistant", "content": said}] if said else []
    text = f"{error.message[0].upper()}{error.message[1:]}"
    ask = {"role": "user", "content": f"{text}. Answer again, with nothing but the JSON."}
    messages = [*row.body["messages"], *answer, ask]
    return msgspec.structs.replace(
        row, body={**row.body, "messages": messages}, asked=row.asked + 1
    )
