"""The base of the resources: finds the engine, makes calls, fans them out."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ClassVar, Generic, Literal, TypeVar

from konko_async._core.pipeline import Call, Response
from konko_async._engine.engine import CallOptions, Engine
from konko_async._engine.map import MapResults, Requests, fan_out
from konko_async._engine.operations import ApiOperation

__all__ = ["EngineGetter", "Mapped", "Resource"]

EngineGetter = Callable[[], Engine]


R = TypeVar("R")


class Resource:
    """A part of a client; finds the engine anew for each call.

    Args:
        engine: returns the engine; for the module-level style, that of the running loop.
    """

    __slots__ = ("_engine",)

    def __init__(self, engine: EngineGetter) -> None:
        self._engine = engine

    def _call(
        self,
        endpoint: ApiOperation,
        body: Any,
        options: CallOptions,
    ) -> Awaitable[tuple[Response, Call]]:
        """Make a call; with ``verify_models`` its model is looked up first."""
        # Looked up for each call: the module-level client has an engine per event loop.
        engine = self._engine()
        call = engine.call(
            endpoint,
            endpoint.path,
            body,
            model=body.model,
            stream=bool(body.stream),
            options=options,
        )
        # Embeddings never come here: model lists mark chat and text models only, so there is no
        # third kind to look up.
        if engine.policies.verify_models:
            return _verified(
                engine, body.model, "chat" if endpoint.name == "chat" else "text", call
            )
        return call


async def _verified(
    engine: Engine,
    model: str,
    kind: Literal["chat", "text"],
    call: Coroutine[Any, Any, tuple[Response, Call]],
) -> tuple[Response, Call]:
    try:
        await engine.index.check(model, kind)
    except BaseException:
        # Never awaited, the coroutine would be reported by a RuntimeWarning; BaseException, because
        # the look-up may also be cancelled.
        call.close()
        raise
    return await call


class Mapped(Resource, Generic[R]):
    """A resource whose ``create()`` can be fanned out."""

    __slots__ = ()

    _known: ClassVar[frozenset[str]]
    """The keywords that ``create()`` takes."""

    def _create(self, **arguments: Any) -> Awaitable[Any]:
        # Not create() itself: its signature differs in each resource, and map() passes dicts.
        raise NotImplementedError

    def map(
        self,
        requests: Requests,
        *,
        max_concurrency: int = 256,
        ordered: bool = False,
        window: int | None = None,
        fail_fast: bool = False,
    ) -> MapResults[R]:
        """Make a call for each request, many at once, in bounded memory.

        Args:
            requests: an iterable or async iterable of dicts of ``create()`` arguments; read
                lazily, as results are taken.
            max_concurrency: calls in flight at once. Default 256.
            ordered: hand the results on in the order of the input; else as they come.
            window: requests that may be read ahead of the oldest whose result has not been
                taken. Default twice ``max_concurrency``; with ``ordered`` four times.
            fail_fast: raise the first error and cancel the rest; else errors are results.

        Returns:
            An async iterator of results with ``index``, ``request``, ``completion`` and
            ``error``. Leaving it early cancels what is in flight. Calls have the priority
            "batch" unless a request says otherwise.

        Raises:
            ConfigurationError: an argument cannot be used.
        """
        return fan_out(
            self._create,
            requests,
            known=self._known,
            max_concurrency=max_concurrency,
            ordered=ordered,
            window=window,
            fail_fast=fail_fast,
        )
