"""``resume=`` and ``continue_on_length=``: streams that survive their server."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from konko_async._core.not_given import is_marker
from konko_async._core.pipeline import Call, Response
from konko_async._core.policies import Timeout
from konko_async._streaming.continuation import PrefillDialect, dialect_named, dialect_of
from konko_async._streaming.resumable import ResumableReader, ResumeState
from konko_async.errors import APIStatusError, ConfigurationError

if TYPE_CHECKING:
    from konko_async._engine.engine import Engine

__all__ = ["NAMES", "Resumption", "resumption_of"]

NAMES: Final = ("resume", "continue_on_length")
_LIMITS: Final = ("max_tokens", "max_completion_tokens")
_NOT_FOUND: Final = (404, 405, 501)

Opened = Callable[[], Awaitable[tuple[Response, Call]]]
Prepare = Callable[[Sequence[Any], dict[str, Any]], Opened]


class Resumption(msgspec.Struct, frozen=True, kw_only=True):
    """What a call asked for.

    Attributes:
        dialect: named by ``resume=``; None: to be found out.
        resume: whether cuts are survived.
        continue_on_length: how often an answer is continued that ended by ``length``.
        params: of the call, for the next ones.
        whole: whether the answer is of use only as a whole, such as JSON.
    """

    dialect: PrefillDialect | None
    resume: bool
    continue_on_length: int
    params: dict[str, Any]
    whole: bool

    def opener(
        self, opened: Opened, engine: Engine, messages: Sequence[Any], prepare: Prepare
    ) -> Opened:
        """Return what opens the stream.

        Args:
            opened: opens that of the first call.
            engine: makes the calls.
            messages: the conversation.
            prepare: makes a further call ready, of messages and parameters.
        """

        async def open_resumable() -> tuple[Response, Call]:
            # Before anything is generated: an answer that could not be resumed is not begun.
            dialect = self.dialect or await _find(engine)
            response, call = await opened()

            async def proceed(progress: ResumeState) -> tuple[Response, Call]:
                again = self._next(progress, call, dialect)
                asked = messages
                if progress.prefill is not None:
                    last = {"role": "assistant", "content": progress.prefill, **dialect.message}
                    asked = [*messages, last]
                return await prepare(asked, again)()

            # The first call's own record is of its own answer: so the response stays as it is.
            whole = Response(response.status, response.headers, response.request_id)
            whole.first_token_at = response.first_token_at
            whole.stream = ResumableReader(
                response,
                call,
                dialect,
                proceed,
                resume=self.resume,
                continue_on_length=self.continue_on_length,
                whole=self.whole,
            )
            return whole, call

        return open_resumable

    def _next(self, progress: ResumeState, first: Call, dialect: PrefillDialect) -> dict[str, Any]:
        """Return the parameters of the next call."""
        again = dict(self.params)
        if progress.prefill is not None and dialect.body:
            again["extra_body"] = {**(again.get("extra_body") or {}), **dialect.body}
        if progress.cut:
            for name in _LIMITS:
                if isinstance(again.get(name), int):
                    again[name] = max(again[name] - progress.tokens, 1)
        if first.deadline is not None:
            # The total timeout is one for all of it.
            left = max(first.deadline - asyncio.get_running_loop().time(), 0.001)
            given = again.get("timeout")
            again["timeout"] = (
                msgspec.structs.replace(given, total=left)
                if isinstance(given, Timeout)
                else Timeout(total=left)
            )
        return again


def resumption_of(params: Any, form: Any, *, stream: bool) -> Resumption | None:
    """Take ``resume`` and ``continue_on_length`` out of a call's parameters.

    Raises:
        ConfigurationError: a value cannot be used, or there is no stream.
    """
    resume, more = (params.pop(name, None) for name in NAMES)
    resume = None if is_marker(resume) else resume
    more = 0 if more is None or is_marker(more) else more
    if not isinstance(more, int) or isinstance(more, bool) or more < 0:
        raise ConfigurationError(
            f"continue_on_length must be an integer of at least 0, not {more!r:.40}"
        )
    if resume is not None and not isinstance(resume, str):
        raise ConfigurationError(f"resume must be 'prefill', not {resume!r:.40}")
    dialect = None if resume is None else dialect_named(resume)
    if resume is None and not more:
        return None
    if not stream:
        raise ConfigurationError("resume and continue_on_length are for streams: stream=True")
    if params.get("n") not in {None, 1}:
        raise ConfigurationError("a stream of several choices (n) cannot be resumed")
    return Resumption(
        dialect=dialect,
        resume=resume is not None,
        continue_on_length=more,
        params=dict(params),
        whole=_wants_json(form),
    )


async def _find(engine: Engine) -> PrefillDialect:
    """Return how the server continues answers: by its host, else by its model list."""
    base_url = engine.settings.base_url
    found = dialect_of(base_url, None)
    if found is None:
        try:
            models = await engine.index.models()
        except APIStatusError as error:
            if error.status_code not in _NOT_FOUND:
                raise
            models = {}  # it has no such list
        found = dialect_of(base_url, [model.owned_by for model in models.values()])
    assert found is not None  # noqa: S101 - with a model list there is a dialect or an error
    return found


def _wants_json(form: Any) -> bool:
    if form is None or is_marker(form):
        return False
    return not (isinstance(form, Mapping) and form.get("type") == "text")
