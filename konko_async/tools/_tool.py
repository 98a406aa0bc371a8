"""A Python function that a model may call."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import UNSET

from konko_async._structured.models import is_model
from konko_async._structured.parse_answer import model_tool
from konko_async.errors import ConfigurationError
from konko_async.tools._signature import Signature, signature_of
from konko_async.wire import FunctionCall, ToolCall

__all__ = [
    "Tool", "allowed_names", "later_choice", "tool_of", "wired_choice", "wired_tools",
]  # fmt: skip

_MAX_DESCRIPTION = 1024  # characters; OpenAI refuses longer ones
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")  # OpenAI's pattern for names


class Tool:
    """A function that a model may call, and how it is shown to the model.

    A plain function does where its defaults are right: ``tools=[get_weather]``. Its parameters need
    annotations (``Annotated[int, msgspec.Meta(ge=1)]`` and all that msgspec knows); docstrings in
    Google's style describe it and them. What ``functools.partial`` gives a function by name is not
    shown to the model: so it is given what is not the model's to choose.

    Args:
        function: sync or async. What it returns goes to the model: text as it is, anything else
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
        ConfigurationError: a model cannot call the function; the message says why, and what to do.
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
        # Refuses NaN, too, which ``<= 0`` would let through.
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
            # An error only where strict is given: by default it is used wherever it can be.
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

    @property
    def needs_arguments(self) -> bool:
        """Whether it cannot be called without any."""
        signature = self._signature
        if signature is not None:
            return len(signature.optional) < len(signature.arguments.__struct_fields__)
        parameters = self._wire["parameters"]
        return bool(parameters.get("required"))

    def parse(self, call: ToolCall | FunctionCall | str) -> dict[str, Any]:
        """Return the arguments of a call as the function takes them, by name: validated.

        Those that the model left out, or gave as null where the type does not allow it, are not
        there if the function has a default for them.

        Args:
            call: a tool call of an answer, its function, or the JSON of its arguments.

        Raises:
            ToolArgumentsError: they do not fit; the message says where.
        """
        function = call.function if isinstance(call, ToolCall) else call
        if isinstance(function, str):
            function = FunctionCall(self.name, function)
        signature = self._signature
        # A schema of the user's own: its rules are not known here, so only an object is required.
        if signature is None:
            return function.parse(dict[str, Any])
        return _given(function.parse(signature.arguments))


def _given(arguments: Any) -> dict[str, Any]:
    values = ((name, getattr(arguments, name)) for name in arguments.__struct_fields__)
    return {name: value for name, value in values if value is not UNSET}


def tool_of(function: Any) -> Tool:
    """Return a function as a Tool; a Tool as it is.

    Raises:
        ConfigurationError: a model cannot call it.
    """
    return function if isinstance(function, Tool) else Tool(function)


def _wired(tool: Any) -> Any:
    if isinstance(tool, Mapping):
        return tool
    return model_tool(tool) if is_model(tool) else tool_of(tool).wire


def wired_tools(tools: Sequence[Any]) -> list[Any]:
    """Return tools as they are sent: dicts as they are, of functions their schemas.

    Raises:
        ConfigurationError: one of them cannot be called by a model, or two have one name.
    """
    if isinstance(tools, (str, bytes, Mapping)) or not isinstance(tools, Sequence):
        raise ConfigurationError(
            f"tools must be a list of functions and dicts, not a {type(tools).__name__}"
        )
    wired = [_wired(tool) for tool in tools]
    names: set[str] = set()
    for tool in wired:
        # Tools that the server runs itself have no function, and no name that could clash.
        name = (tool.get("function") or {}).get("name")
        if name in names:
            raise ConfigurationError(f"two tools are called {name}: give one Tool(..., name=...)")
        names |= {name} if name else set()
    return wired


def wired_choice(choice: Any) -> Any:
    """Return a ``tool_choice`` as it is sent; a function stands for itself."""
    if callable(choice):
        return {"type": "function", "function": {"name": tool_of(choice).name}}
    allowed = _allowed(choice)
    if allowed is None or not any(map(callable, allowed)):
        return choice
    tools = [wired_choice(tool) if callable(tool) else tool for tool in allowed]
    inner = choice.get("allowed_tools")
    if isinstance(inner, Mapping):
        return {**choice, "allowed_tools": {**inner, "tools": tools}}
    return {**choice, "tools": tools}


def later_choice(choice: Any) -> Any:
    """Return the ``tool_choice`` of all rounds but the first.

    One that forces a call would force one forever; one that forbids some stays.
    """
    # These force no call, so they may stay.
    if choice in (None, "auto", "none"):
        return choice
    if not isinstance(choice, Mapping) or choice.get("type") != "allowed_tools":
        forbids = isinstance(choice, Mapping) and choice.get("type") == "none"
        return choice if forbids else "auto"
    inner = choice.get("allowed_tools")
    if isinstance(inner, Mapping):
        return {**choice, "allowed_tools": {**inner, "mode": "auto"}}
    return {**choice, "mode": "auto"}


def allowed_names(choice: Any) -> frozenset[str] | None:
    """Return the tools that a ``tool_choice`` allows; None: all of them."""
    if choice == "none" or (isinstance(choice, Mapping) and choice.get("type") == "none"):
        return frozenset()
    allowed = _allowed(choice)
    if allowed is None:
        return None
    names = ((tool.get("function") or tool).get("name") for tool in allowed)
    return frozenset(name for name in names if name)


def _allowed(choice: Any) -> list[Any] | None:
    """Return the tools of a choice of the type ``allowed_tools``, in either of its spellings."""
    if not isinstance(choice, Mapping) or choice.get("type") != "allowed_tools":
        return None
    inner = choice.get("allowed_tools")
    tools = (inner if isinstance(inner, Mapping) else choice).get("tools")
    return list(tools) if isinstance(tools, Sequence) and not isinstance(tools, str) else []
