"""Makes classes that do without ``await`` what asynchronous classes do with it.

Nothing here knows a method by its name: what a class of the client's can do is found by looking at
it, once. ``scripts/make_blocking_stubs.py`` writes the same down for type checkers.
"""

from __future__ import annotations

import functools
import inspect
import threading
import types
import warnings
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from collections.abc import Set as AbstractSet
from typing import Any, Final, Self

from konko_async._core.secret import masked_keyword
from konko_async.blocking._pages import page_of
from konko_async.blocking._portal import Caller, Portal
from konko_async.errors import KonkoError

__all__ = ["Mirror", "adapted", "arguments", "class_of", "register", "unwrapped"]

_END: Final = object()


class Mirror:
    """Stands for an asynchronous object: the same names; methods wait for their results."""

    _portal: Portal
    _inner: Any

    def __init__(self, portal: Portal, inner: Any) -> None:
        self._portal = portal
        self._inner = inner
        self._parts: dict[str, Any] = {}

    def __repr__(self) -> str:
        return f"<blocking {repr(self._inner).removeprefix('<')}"


class _HeldStream(Mirror):
    """Stands for what holds connections or tasks: a stream, the results of a map, a run."""

    def __init__(self, portal: Portal, inner: Any, caller: Caller | None = None) -> None:
        super().__init__(portal, inner)
        self._home = portal.home
        self.closer = getattr(inner, "aclose", None) or getattr(inner, "close", None)
        if self._home is not None and self.closer is not None:
            self._home.held.add(self)
        self._caller = caller or Caller()
        self._steps = threading.Lock()  # one step at a time, from any thread
        self._takes_ready = hasattr(inner, "_take_ready")
        self._inputs: list[_CallersIterable] = []  # what it reads, closed at its end
        self._parent: Any = None  # the stream whose text this is, which must not be closed before
        # What can be awaited and iterated over: the first use decides.
        # Streams have an __await__ too, for those who do not write `async with`.
        self._awaitable = hasattr(inner, "__await__") and not hasattr(inner, "_await_hint")
        self._undecided = self._awaitable

    def _call(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        if self._portal.home is not self._home:
            raise KonkoError(
                f"this {type(self).__name__} is of a client that was closed, or of the process "
                "that forked this one: make another"
            )
        return self._portal.call(self._caller, function, *args, **kwargs)

    def _decide(self) -> None:
        """Run to the end what was not iterated over."""
        if self._undecided:
            self._undecided = False
            self._call(_awaited, self._inner)

    def __getattr__(self, name: str) -> Any:
        # What awaiting it gives has more names, such as the `completion` of a run.
        if name.startswith("_") or not self._awaitable:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        self._undecided = False
        return getattr(self._call(_awaited, self._inner), name)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        self._undecided = False
        with self._steps:
            # What has arrived is taken without the way to the other thread and back.
            # Looked up each time: a stream may change its class.
            if self._takes_ready and (item := self._inner._take_ready()) is not None:  # noqa: SLF001 - made for this
                return item
            item = _END
            try:
                item = self._call(_step, self._inner)
            finally:
                if item is _END:
                    self._close_inputs()
        if item is _END:
            raise StopIteration
        return item

    def reads(self, values: Iterable[Any]) -> None:
        """Close those of the arguments that are read here, once that has come to its end."""
        self._inputs = [value for value in values if isinstance(value, _CallersIterable)]

    def _close_inputs(self) -> None:
        inputs, self._inputs = self._inputs, []
        for each in inputs:
            each.close()

    def __enter__(self) -> Any:
        enter = getattr(self._inner, "__aenter__", None)
        entered = self._inner if enter is None else self._call(enter)
        if entered is self._inner:
            return self
        return adapted(self._portal, entered)

    def __exit__(self, *error: object) -> None:
        self._undecided = False
        leave = getattr(self._inner, "__aexit__", None)
        # After a client's end, or a fork, there is nothing left to be closed.
        if leave is not None and self._portal.home is self._home:
            self._call(leave, *error)
        self._close_inputs()

    def __del__(self) -> None:
        inner = getattr(self, "_inner", None)
        home = getattr(self, "_home", None)
        if inner is None or getattr(inner, "closed", False):
            return
        if self._undecided:
            warnings.warn(
                f"{type(self).__name__} was never run: read its .completion, or iterate over it",
                RuntimeWarning,
                source=self,
                stacklevel=2,
            )
        if home is not None and self.closer is not None:
            home.submit(self.closer)


async def _awaited(value: Any) -> Any:
    return await value


async def _step(iterator: AsyncIterator[Any]) -> Any:
    try:
        return await iterator.__anext__()
    except StopAsyncIteration:
        return _END


# -- what goes in, and what comes out --------------------------------------------------------------


class _CallersIterable(AsyncIterator[Any]):
    """An iterable of the caller's, read in the caller's thread."""

    def __init__(self, caller: Caller, values: Iterable[Any]) -> None:
        self._caller = caller
        self._values = values
        self._iterator: Iterator[Any] | None = None

    async def __anext__(self) -> Any:
        item = await self._caller.run(self._next)
        if item is _END:
            raise StopAsyncIteration
        return item

    def _next(self) -> Any:
        if self._iterator is None:
            self._iterator = iter(self._values)
        return next(self._iterator, _END)

    def close(self) -> None:
        """Close a generator, in the caller's thread."""
        if isinstance(self._values, Generator):
            self._values.close()


def unwrapped(value: Any) -> Any:
    """Return what a mirror stands for; anything else as it is."""
    return value._inner if isinstance(value, Mirror) else value  # noqa: SLF001 - a mirror's own


def arguments(caller: Caller, values: Mapping[str, Any]) -> dict[str, Any]:
    """Return keywords as an asynchronous method takes them, with functions that call back."""
    return {name: _argument(caller, name, value) for name, value in values.items()}


def _argument(caller: Caller, name: str, value: Any) -> Any:
    if isinstance(value, Mirror):
        return unwrapped(value)
    if name in _CALLBACKS and callable(value) and not inspect.iscoroutinefunction(value):
        return functools.partial(_CALLBACKS[name], caller, value)
    if name == "requests" and _is_lazy(value):
        return _CallersIterable(caller, value)
    # A traceback may show the locals of the frames from here on.
    return masked_keyword(name, value)


def _is_lazy(value: Any) -> bool:
    """Whether reading an iterable may run code of the user's."""
    plain = (str, bytes, Sequence, Mapping, AbstractSet, AsyncIterable)
    return isinstance(value, Iterable) and not isinstance(value, plain)


def _post(caller: Caller, function: Callable[..., Any], *args: Any) -> None:
    caller.post(function, *args)


async def _ask(caller: Caller, function: Callable[..., Any], *args: Any) -> Any:
    return await caller.run(function, *args)


# Functions that block (an approval that is typed in, a progress bar) must not hold up the loop.
_CALLBACKS: dict[str, Callable[..., Any]] = {
    "before_tool": _ask,
    "on_notice": _post,
    "on_progress": _post,
    "on_row": _ask,
}


def adapted(portal: Portal, value: Any, caller: Caller | None = None) -> Any:
    """Return a result as a blocking program can use it."""
    kind = class_of(type(value))
    if kind is None:
        return value
    over = getattr(kind, "over", None)  # a copy of a client
    if over is not None:
        return over(portal, value)
    return kind(portal, value, caller) if issubclass(kind, _HeldStream) else kind(portal, value)


# -- classes ---------------------------------------------------------------------------------------

# Nothing of it waits, but what it parses may be a stream.
_ALSO: Final = frozenset({"APIResponse"})
_made: dict[type, type[Mirror] | None] = {}


def class_of(kind: type) -> type[Mirror] | None:
    """Return the class that stands for an asynchronous one; None for others."""
    kind = vars(kind).get("_kind", kind)  # a stream that is not open, or gives events
    try:
        return _made[kind]
    except KeyError:
        return _made.setdefault(kind, _make_class(kind))


def register(kind: type, *, name: str, base: type[Mirror]) -> type[Mirror]:
    """Make the class that stands for ``kind``, on top of a base with what differs."""
    found = _make_class(kind, name, base)
    assert found is not None  # noqa: S101 - only asynchronous classes are registered
    _made[kind] = found
    return found


def _make_class(
    kind: type, name: str | None = None, base: type[Mirror] | None = None
) -> type[Mirror] | None:
    """Make the class that stands for ``kind``, unless nothing of it is asynchronous."""
    # What is closed: a client is, too, but is made and closed in its own way.
    held = hasattr(kind, "__anext__") or (base is None and hasattr(kind, "__aenter__"))
    public = [name for name in dir(kind) if not name.startswith("_")]
    members = {name: inspect.getattr_static(kind, name) for name in public}
    ours = kind.__module__.partition(".")[0] == "konko_async"
    waits = any(inspect.iscoroutinefunction(member) for member in members.values())
    # Such as `chat`, which has no method, and whose parts have.
    holds = any(_is_slot(member) for member in members.values()) and not hasattr(
        kind, "__struct_fields__"
    )
    if not held and not (ours and (waits or holds or kind.__name__ in _ALSO)):
        return None
    for each in kind.__mro__:
        for noted in vars(each).get("__annotations__", {}):
            if ours and not noted.startswith("_") and noted not in members:
                members[noted] = None  # set by the instance
    body: dict[str, Any] = {
        "__doc__": kind.__doc__,
        "__module__": "konko_async.blocking",
        "__slots__": (),
    }
    for name_of, member in members.items():
        # What the base says itself is what differs.
        if isinstance(member, (classmethod, staticmethod)) or hasattr(base, name_of):
            continue
        if inspect.isfunction(member):
            blocking = "close" if name_of == "aclose" else name_of
            if blocking.startswith("aiter_"):
                blocking = blocking.removeprefix("a")
            body.setdefault(blocking, _method(name_of, member, held=held))
        else:
            body[name_of] = _attribute(name_of, member)
    return type(
        name or kind.__name__.lstrip("_"), (base or (_HeldStream if held else Mirror),), body
    )


def _is_slot(member: Any) -> bool:
    return isinstance(member, types.MemberDescriptorType)


def _method(name: str, function: Callable[..., Any], *, held: bool) -> Callable[..., Any]:
    if held:

        @functools.wraps(function)
        def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            self._undecided = False
            closing = name in {"close", "aclose"}
            if closing and self._portal.home is not self._home:
                return None  # closed with its client
            found = adapted(self._portal, self._call(getattr(self._inner, name), *args, **kwargs))
            if isinstance(found, _HeldStream):
                found._parent = self  # noqa: SLF001 - the same class
            if closing:
                self._close_inputs()
            return found
    else:

        @functools.wraps(function)
        def method(self: Any, *args: Any, **kwargs: Any) -> Any:
            portal = self._portal
            bound = getattr(self._inner, name)
            if args:  # the names of all arguments have to be known
                kwargs = {**inspect.signature(bound).bind_partial(*args).arguments, **kwargs}
            caller = Caller()
            kwargs = arguments(caller, kwargs)
            value = portal.call(caller, bound, **kwargs)
            following = getattr(value, "following", None)
            if following is not None:  # a list in pages
                page = portal.call(caller, _awaited, value)
                return page_of(page, functools.partial(portal.call, caller, following))
            found = adapted(portal, value, caller)
            if isinstance(found, _HeldStream):
                found.reads(kwargs.values())
            return found

    # What wraps() says of the original is not so here: nobody has to await it.
    del method.__wrapped__
    method.__signature__ = inspect.signature(function)  # type: ignore[attr-defined]  # functions may have one
    return method


def _call_made(portal: Portal, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    caller = Caller()
    found = portal.call(caller, function, *args, **arguments(caller, kwargs))
    return adapted(portal, found, caller)


def _attribute(name: str, member: Any) -> property:
    def read(self: Any) -> Any:
        if name in self._parts:
            return self._parts[name]
        if isinstance(self, _HeldStream):
            self._decide()
        value = getattr(self._inner, name)
        # A method that was made, such as those of `with_raw_response`.
        if inspect.isfunction(value):
            return functools.partial(_call_made, self._portal, value)
        found = adapted(self._portal, value)
        if found is not value and not isinstance(found, _HeldStream):
            self._parts[name] = found  # the same object each time
        return found

    return property(read, doc=getattr(member, "__doc__", None))
