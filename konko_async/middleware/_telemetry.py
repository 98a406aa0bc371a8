"""Telemetry of calls: the history on errors, records for observers, lines in the log.

No prompt, answer or key appears in any of them.
"""

from __future__ import annotations

import asyncio
import logging
from functools import lru_cache, partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from msgspec.structs import replace

from konko_async._core.redaction import shown_url
from konko_async._records import Attempt, CallRecord, RequestParams
from konko_async.errors import KonkoError
from konko_async.limits._estimate import answer_tokens, prompt_tokens

if TYPE_CHECKING:
    from collections.abc import Sequence

    from konko_async._core.pipeline import Handler, NamedServer, Request, Response
    from konko_async._records import Observer, StoreRecord

__all__ = ["AttemptLog", "Telemetry", "notify", "params_of"]

_log = logging.getLogger("konko_async")
_log.addHandler(logging.NullHandler())  # a library says nothing unless its user asks it to
_MESSAGE_LIMIT = 500
# Bytes of a request up to which its prompt is kept while an answer is streamed, so that its tokens
# are counted only if the server does not; of longer ones they are counted at once. Streams may be
# many, open for long, and their prompts large.
_SHORT = 4096
_NO_PARAMS: Final = RequestParams()
_PARAMS: Final = RequestParams.__struct_fields__
# One call in C, for what nearly all requests are: all fields but those of embeddings.
_CHAT_PARAMS: Final = attrgetter(*_PARAMS[:-2])
_WHOLE_FACTS: Final = attrgetter("id", "model", "choices")
_USED: Final = attrgetter(
    "prompt_tokens", "completion_tokens", "prompt_tokens_details", "completion_tokens_details"
)


def notify(observers: Sequence[Observer], record: CallRecord | Attempt | StoreRecord) -> None:
    """Give observers a record; what one of them raises is logged."""
    for observer in observers:
        try:
            observer(record)  # type: ignore[arg-type]  # one that says so itself may know two kinds
        except Exception:  # noqa: BLE001 - an observer must not break the call it observes
            _log.exception("an observer failed")


def params_of(params: Any) -> RequestParams:
    """Return what a request says beside its prompt.

    Args:
        params: its wire struct, or a dict of the body's fields.
    """
    if params is None:
        return _NO_PARAMS
    get = params.get if isinstance(params, dict) else partial(_attribute, params)
    return RequestParams(*map(get, _PARAMS))


def _attribute(params: Any, name: str) -> Any:
    return getattr(params, name, None)


def _whole_facts(result: Any) -> tuple[str | None, str | None, tuple[str, ...]]:
    """Return id, model and finish_reasons of a whole answer, as far as it has them."""
    try:
        name, model, choices = _WHOLE_FACTS(result)
    except AttributeError:  # embeddings, models
        return None, getattr(result, "model", None), ()
    try:
        (only,) = choices
    except ValueError:
        reasons = [choice.finish_reason for choice in choices]
        return name or None, model or None, tuple([reason for reason in reasons if reason])
    reason = only.finish_reason
    return name or None, model or None, () if reason is None else (reason,)


class Telemetry:
    """Records each call: one record for observers, and the history on the error it raises.

    Args:
        observers: called with each record.
        base_url: named in the records of calls that were never sent.
    """

    __slots__ = ("_base_url", "_estimates", "_observers", "_skips_cached")

    def __init__(self, observers: Sequence[Observer], base_url: str) -> None:
        self._observers = tuple(observers)
        self._base_url = shown_url(base_url)
        self._estimates = any(getattr(each, "wants_estimates", False) for each in observers)
        # Where nobody wants the records of calls that the answer cache answers, none is made.
        self._skips_cached = all(getattr(each, "skips_cached", False) for each in observers)

    def answered(self, request: Request, response: Response, started_at: float) -> None:
        """Notify observers when the answer has been read or given up.

        Args:
            request: the call's first.
            response: its answer.
            started_at: wall clock, seconds since 1970, at which the call began.
        """
        if not self._observers or (response.cached and self._skips_cached):
            return
        sent = request.params
        try:
            params = params_of(sent) if type(sent) is dict else RequestParams(*_CHAT_PARAMS(sent))
        except AttributeError:
            params = params_of(sent)
        if response.closed:
            self._record(request, params, started_at, response)
            return
        content, prompt = request.content, request.params
        if content.__class__ is bytes and len(content) > _SHORT:
            prompt = prompt_tokens(prompt)
        kept = replace(request, params=prompt, content=b"")
        response.on_close(partial(self._record, kept, params, started_at))

    def failed(self, request: Request, error: BaseException, started_at: float) -> None:
        """Write down how a call ended, and on the error what was tried.

        Args:
            request: the call's first.
            error: what it raises, also from the user's own middleware.
            started_at: as for :meth:`answered`.
        """
        call = request.call
        # A timeout of the caller's own says nothing of what took so long; the note below does.
        outcome = "cancelled" if isinstance(error, asyncio.CancelledError) else "error"
        if outcome == "cancelled":
            error.add_note(
                f"konko_async: {request.operation.name} ({request.model}) was {call.doing}"
            )
        elif isinstance(error, KonkoError):
            # Whoever raised it, the user's middleware included, the history is of the whole call.
            error.attempts = tuple(call.attempts)
        if outcome == "error":
            _log.debug(
                "%s of %s failed after %d attempts: %s",
                request.operation.name, request.model, len(call.attempts), type(error).__name__,
            )  # fmt: skip
        if not self._observers:
            return
        attempts = tuple(call.attempts)
        record = CallRecord(
            operation=request.operation.name,
            base_url=(attempts[-1].base_url if attempts else None) or self._base_url,
            model=request.model,
            stream=request.stream,
            priority=request.priority,
            started_at=started_at,
            duration=call.loop.time() - call.started,
            queued=call.queued,
            params=params_of(request.params),
            attempts=attempts,
            outcome=outcome,  # type: ignore[arg-type]  # one of the two above
            error_type=type(error).__name__,
            request_id=getattr(error, "request_id", None),
        )
        notify(self._observers, record)

    def _record(
        self, request: Request, params: RequestParams, started_at: float, response: Response
    ) -> None:
        """Notify observers of a call whose answer has ended.

        Args:
            request: the call's first; of a stream its ``params`` may be the tokens of its prompt.
            params: what it said beside its prompt.
            started_at: wall clock, seconds since 1970, at which the call began.
            response: its answer.
        """
        call, first = request.call, response.first_token_at
        reader, usage = response.stream, response.usage
        if reader is not None:
            answer_id, model, reasons = reader.accumulated.facts()
        else:
            answer_id, model, reasons = _whole_facts(response.result)
        if usage is None:
            told = completion = came = spent = None
        else:
            try:
                told, completion, came, spent = _USED(usage)
            except AttributeError:  # embeddings have a prompt only
                told, completion, came, spent = usage.prompt_tokens, None, None, None
        # In two steps: more than 15 keywords would be passed by a dict.
        record = CallRecord(
            operation=request.operation.name,
            base_url=response.base_url or self._base_url,
            model=request.model,
            response_model=model,
            stream=request.stream,
            priority=request.priority,
            started_at=started_at,
            # From the loop's clock: the wall clock may be set while a stream is open.
            duration=call.loop.time() - call.started,
            queued=call.queued,
            time_to_first_token=None if first is None else first - call.started,
            params=params,
            attempts=tuple(call.attempts),
            outcome=response.outcome,  # type: ignore[arg-type]  # one of the four that it knows
            error_type=response.error_type,
            request_id=response.request_id,
        )
        record = replace(
            record,
            prompt_tokens=told,
            completion_tokens=completion,
            cached_tokens=came and came.cached_tokens,
            reasoning_tokens=spent and spent.reasoning_tokens,
            chunks=reader and reader.decoder.chunks,
            response_id=answer_id,
            finish_reasons=reasons,
        )
        if usage is None and reader is not None and (self._estimates or record.outcome != "ok"):
            record = _estimated(record, reader, request.params)
        if response.cached:
            # It used no tokens: sums of tokens or costs need not know of the cache.
            record = replace(
                record, cached=True, prompt_tokens=0, completion_tokens=0, cached_tokens=None,
                reasoning_tokens=None,
            )  # fmt: skip
        notify(self._observers, record)


def _estimated(record: CallRecord, reader: Any, prompt: Any) -> CallRecord:
    """Return the record of a stream whose usage the server did not report.

    Args:
        record: the rest.
        reader: of the stream.
        prompt: the tokens of the prompt, or what they are counted of.
    """
    answer = answer_tokens(reader.decoder.chunks, reader.accumulated.size())
    return replace(
        record,
        estimated_prompt_tokens=prompt if type(prompt) is int else prompt_tokens(prompt),
        estimated_completion_tokens=answer,
    )


def _endpoint_of(request: Request) -> NamedServer | None:
    return request.times.endpoint


def _at(record: Attempt, endpoint: NamedServer, response: Response | None) -> Attempt:
    """Return the record with the endpoint that the attempt went to."""
    base_url = _shown(endpoint.base_url)
    if response is not None:
        response.base_url = base_url
    return replace(record, endpoint=endpoint.name, base_url=base_url)


class AttemptLog:
    """Records each attempt, inside retry and hedging; the records stay with the call.

    Args:
        observers: called with each record.
        base_url: where requests go that have no target of their own.
    """

    __slots__ = ("_base_url", "_observers")

    def __init__(self, observers: Sequence[Observer], base_url: str) -> None:
        self._observers = tuple(observers)
        self._base_url = shown_url(base_url)

    async def __call__(self, request: Request, call_next: Handler) -> Response:
        """Run the attempt and write down how it went."""
        loop = request.call.loop
        started = loop.time()
        try:
            response = await call_next(request)
        # A cancelled attempt is an attempt, too: it may have been billed.
        except BaseException as error:
            self.write(request, started, loop.time(), None, error, _endpoint_of(request))
            raise
        self.write(request, started, loop.time(), response, None, _endpoint_of(request))
        return response

    def write(  # noqa: PLR0917 - one call per attempt: keywords cost more than the rest of it
        self,
        request: Request,
        started: float,
        ended: float,
        response: Response | None,
        error: BaseException | None,
        endpoint: NamedServer | None = None,
    ) -> None:
        """Write down how an attempt went.

        Args:
            request: the attempt's.
            started: ``loop.time()``.
            ended: ``loop.time()``.
            response: the answer; None if it failed.
            error: what it raised, or None.
            endpoint: what it went to, where there are several.
        """
        call, times = request.call, request.times
        base_url, target = self._base_url, request.target
        if target is not None and target.base_url is not None:
            base_url = _shown(target.base_url)
        duration = ended - started
        first = None
        if response is None:
            status = getattr(error, "status_code", None)
        else:
            status = response.status
            response.base_url = base_url
            if request.stream:
                first = duration
        queued = times.queued
        if queued:
            call.queued += queued
        record = Attempt(
            number=request.attempt,
            model=request.model,
            base_url=base_url,
            started=started - call.started,
            duration=duration,
            queued=queued,
            connect=times.connect,
            first_token=first,
            status_code=status,
            hedge=request.hedge,
        )
        if endpoint is not None:
            record = _at(record, endpoint, response)
        if error is not None:
            record = _with_error(record, error)
            _log.debug(
                "attempt %d of %s %s failed: %s",
                record.number, request.operation.name, request.model, record.error_type,
            )  # fmt: skip
        call.attempts.append(record)
        if self._observers:
            notify(self._observers, record)


def _with_error(record: Attempt, error: BaseException) -> Attempt:
    message = getattr(error, "message", None)
    return replace(
        record,
        error_type=type(error).__name__,
        error=None if message is None else message[:_MESSAGE_LIMIT],
    )


_shown = lru_cache(maxsize=256)(shown_url)
