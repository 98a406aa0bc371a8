"""A Python function that a model may call."""

from __future__ import annotations

import asyncio
import functools
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import UNSET

from konko_async.errors import ConfigurationError, ToolArgumentsError
from konko_async.tools._signature import Signature, signature_of
from konko_async.wire import FunctionCall, ToolCall

__all__ = ["Tool", "call_tool", "tool_of", "wired_choice", "wired_tools"]

_MAX_DESCRIPTION = 1024
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")  # as OpenAI has it


class Tool:
    """A function that a model may call, and how it is shown to the model.

    A plain function does where its defaults are right: ``tools=[get_weather]``. Its parameters need
    annotations (``Annotated[int, msgspec.Meta(ge=1)]`` and all that msgspec knows); docstrings in
    Google's style describe it and them. What ``functools.partial`` gives a function by name is not
    shown to the model: so it is given what is not the model's to choose.

    Args:
        function: sync or async. What it returns is told to the model: text as it is, anything else
            as JSON.
        name: what the model calls it. Default: the function's name.
        description: what it does. Default: its docstring, up to the first section.
        parameters: a JSON Schema of the arguments, which are then not checked but given as they
            come. Default: made of the signature.
        strict: whether the server is to enforce the schema. Default: wherever OpenAI's strict mode
            can express it; not for ``parameters`` of your own.
        timeout: seconds that a call of it may take in ``run_tools()``. Default: those of the run.
        run_in_thread: whether ``run_tools()`` runs it in a thread, if it is sync. Default: what the
            run says.

    Attributes:
        function: as given.
        name: as shown.
        timeout: as given.
        run_in_thread: as given.

    Raises:
        ConfigurationError: a model cannot call the function; says why, and what to do.
    """

    __slots__ = ("_signature", "_wire", "function", "name", "run_in_thread", "timeout")

    name: str

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        name: str | None = None,
        description: str | None = None,
        parameters: Mapping[str, Any] | None = None,
        strict: bool | None = None,
        timeout: float | None = None,
        run_in_thread: bool | None = None,
    ) -> None:
        if timeout is not None and not timeout > 0:
            raise ConfigurationError(f"the timeout of a tool must be above 0, not {timeout!r}")
        self.function = function
        self.timeout = timeout
        self.run_in_thread = run_in_thread
        self._signature: Signature | None = None
        shown: dict[str, Any] = {}
        if parameters is None:
            signature = self._signature = signature_of(function, name)
            schema = signature.schema
            if strict and not schema.strict:
                raise ConfigurationError(
                    f"strict mode cannot express {schema.loose}: an object with keys of any name, "
                    "a value of any type, or a tuple whose members differ"
                )
            name, shown = signature.name, schema.schema
            strict = schema.strict if strict is None else strict
            description = signature.description if description is None else description
        elif not callable(function):
            raise ConfigurationError(f"a tool must be callable, not a {type(function).__name__}")
        self.name = name or str(getattr(function, "__name__", ""))
        if not _NAME.fullmatch(self.name):
            raise ConfigurationError(
                f"a tool needs a name of letters, digits, '_' and '-', not {self.name!r:.70}: "
                "give Tool(..., name=...)"
            )
        self._wire: dict[str, Any] = {"name": self.name}
        if description:
            self._wire["description"] = description[:_MAX_DESCRIPTION]
        self._wire["parameters"] = shown if parameters is None else parameters
        if strict is not None:
            self._wire["strict"] = strict

    @property
    def wire(self) -> dict[str, Any]:
        """What is sent in ``tools``."""
        return {"type": "function", "function": self._wire}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function."""
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"Tool({self.name})"

    def parse(self, call: ToolCall | FunctionCall | str) -> dict[str, Any]:
        """Return the arguments of a call as the function takes them, by name: validated.

        Those that the model left out, or gave as null where the type does not allow it, are not
        there if the function has a default for them.

        Args:
            call: a tool call of an answer, its function, or the JSON of its arguments.

        Raises:
            ToolArgumentsError: they do not fit; says where.
        """
        function = call.function if isinstance(call, ToolCall) else call
        if isinstance(function, str):
            function = FunctionCall(self.name, function)
        signature = self._signature
        if signature is None:
            return function.parse(dict[str, Any])
        try:
            found = function.parse(signature.arguments)
        except ToolArgumentsError as error:
            failure = error
        else:
            return _given(found)
        # A default was meant: strict mode has no arguments that may be left out.
        try:
            plain = function.parse(dict[str, Any])
            text = {
                name: value
                for name, value in plain.items()
                if value is not None or name not in signature.optional
            }
            return _given(msgspec.convert(text, signature.arguments, str_keys=True))
        except (ToolArgumentsError, msgspec.ValidationError):
            raise failure from None


def _given(arguments: Any) -> dict[str, Any]:
    values = ((name, getattr(arguments, name)) for name in arguments.__struct_fields__)
    return {name: value for name, value in values if value is not UNSET}


def tool_of(function: Any) -> Tool:
    """Return the tool that a function is; a Tool as it is.

    Raises:
        ConfigurationError: a model cannot call it.
    """
    return function if isinstance(function, Tool) else Tool(function)


def wired_tools(tools: Sequence[Any]) -> list[Any]:
    """Return tools as they are sent: dicts as they are, of functions their schemas.

    Raises:
        ConfigurationError: one of them cannot be called by a model, or two have one name.
    """
    if isinstance(tools, (str, bytes, Mapping)) or not isinstance(tools, Sequence):
        raise ConfigurationError(
            f"tools must be a list of functions and dicts, not a {type(tools).__name__}"
        )
    wired = [tool if isinstance(tool, Mapping) else tool_of(tool).wire for tool in tools]
    names: set[str] = set()
    for tool in wired:
        name = (tool.get("function") or {}).get("name")
        if name in names:
            raise ConfigurationError(f"two tools are called {name}: give one Tool(..., name=...)")
        names |= {name} if name else set()
    return wired


def wired_choice(choice: Any) -> Any:
    """Return a ``tool_choice`` as it is sent; a function stands for itself."""
    if callable(choice):
        return {"type": "function", "function": {"name": tool_of(choice).name}}
    return choice


async def call_tool(
    tool: Tool, arguments: dict[str, Any], *, in_thread: bool
) -> tuple[Any, Exception | None]:
    """Call a tool's function: in a thread if it is sync and may be, else in the event loop.

    Returns:
        What it returned, and the exception if it raised one: no coroutine can raise StopIteration.
    """
    function = tool.function
    if tool.run_in_thread is not None:
        in_thread = tool.run_in_thread
    if in_thread and not _is_async(function):
        value, error = await asyncio.to_thread(_caught, function, arguments)
    else:
        value, error = _caught(function, arguments)
    return (await value if inspect.isawaitable(value) else value), error


def _is_async(function: Any) -> bool:
    while isinstance(function, functools.partial):
        function = function.func
    if not inspect.isroutine(function):
        function = type(function).__call__
    return inspect.iscoroutinefunction(function)


def _caught(function: Any, arguments: dict[str, Any]) -> tuple[Any, Exception | None]:
    """Return what a function returns, and what it raises."""
    try:
        return function(**arguments), None
    except Exception as error:  # noqa: BLE001 - what it is told of
        return None, error
