"""Functions as tools: their schemas, what is wrong with some, and their arguments."""

from __future__ import annotations

import functools
import gc
import weakref
from typing import Annotated, Any, Literal

import msgspec
import pytest
from msgspec import Meta

from konko_async import ConfigurationError, Tool, ToolArgumentsError, ToolCall
from konko_async.testing._emulator.strict_schema import strict_problem
from konko_async.tools._tool import tool_of, wired_choice, wired_tools
from konko_async.wire import FunctionCall


class Place(msgspec.Struct):
    """Somewhere."""

    city: str
    country: str = "IT"


def get_weather(
    place: Place,
    days: Annotated[int, Meta(ge=1, le=9, description="How many days")] = 3,
    unit: Literal["c", "f"] = "c",
    *,
    tags: list[str] | None = None,
    note: Annotated[str, "Anything else"] = "",
) -> dict[str, Any]:
    """Forecast the weather.

    It is often wrong.

    Args:
        place: where,
            in full
        unit (str): of temperatures

    Returns:
        What it may be.
    """
    return {"place": place, "days": days, "unit": unit, "tags": tags, "note": note}


def test_the_schema_of_a_function():
    sent = Tool(get_weather).wire
    function = sent["function"]
    assert sent["type"] == "function"
    assert (function["name"], function["strict"]) == ("get_weather", True)
    assert function["description"] == "Forecast the weather.\n\nIt is often wrong."
    assert strict_problem(function["parameters"]) is None
    properties = function["parameters"]["properties"]
    assert list(properties) == ["place", "days", "unit", "tags", "note"]
    assert properties["place"] == {
        "anyOf": [{"$ref": "#/$defs/Place"}],
        "description": "where, in full.",
    }
    assert properties["days"] == {
        "type": "integer", "minimum": 1, "maximum": 9, "description": "How many days. Default: 3.",
    }  # fmt: skip
    assert properties["unit"]["description"] == 'of temperatures. Default: "c".'
    assert "description" not in properties["tags"]
    assert properties["note"]["description"] == 'Anything else. Default: "".'


def nothing() -> None: ...
def unannotated(x): ...
def many(*rest: int): ...
def named(**rest: int): ...
def by_place(x: int, /): ...
def lost(x: NoSuchType): ...  # noqa: F821 - it is the test
def unknown_type(x: Tool): ...


class Service:
    def look(self, name: str) -> str:
        """Look."""
        return name

    async def __call__(self, name: str) -> str:
        """Call."""
        return name


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (unannotated, "the tool unannotated takes x without an annotation.*write 'x: str'"),
        (many, r"takes \*rest: .*name each of them"),
        (named, r"takes \*\*rest: .*name each of them"),
        (by_place, "by position only.*remove the '/'"),
        (lost, "NoSuchType.*must be found in its module"),
        (unknown_type, "the arguments of the tool unknown_type: .*msgspec"),
        (Service, "a function, a Tool or a dict, not the class Service"),
        (Service.look, "pass a bound method"),
        ("name", "not a str"),
        (lambda: 1, r"Tool\(\.\.\., name=\.\.\.\)"),
    ],
)
def test_what_a_model_cannot_call_is_said(function, words):
    with pytest.raises(ConfigurationError, match=words):
        Tool(function)


def test_other_callables():
    assert Tool(nothing).wire["function"]["parameters"]["properties"] == {}
    assert "description" not in Tool(nothing).wire["function"]
    assert Tool(Service().look).wire["function"]["description"] == "Look."
    assert Tool(Service()).name == "Service"
    assert Tool(lambda: 1, name="one").name == "one"
    tool = Tool(functools.partial(get_weather, Place("Rome"), unit="f"))
    assert list(tool.wire["function"]["parameters"]["properties"]) == ["days", "tags", "note"]
    assert tool(days=1)["unit"] == "f"
    assert repr(tool) == "Tool(get_weather)"


def test_a_schema_of_ones_own():
    tool = Tool(print, name="show", parameters={"type": "object"}, description="Show it.")
    assert tool.wire["function"] == {
        "name": "show", "description": "Show it.", "parameters": {"type": "object"},
    }  # fmt: skip
    assert tool.parse('{"a": 1}') == {"a": 1}
    assert Tool(print, parameters={}).name == "print"
    with pytest.raises(ConfigurationError, match="must be callable"):
        Tool("print", parameters={})
    for name in ("größe", "a b", "x" * 65):
        with pytest.raises(ConfigurationError, match="letters, digits"):
            Tool(nothing, name=name)
    assert Tool(nothing, name="get-it").parse("{}") == {}
    with pytest.raises(ConfigurationError, match="needs a name"):
        Tool(functools.partial(print), parameters={})
    with pytest.raises(ConfigurationError, match="above 0"):
        Tool(print, parameters={}, timeout=0)


def test_open_arguments_are_not_strict():
    def search(terms: dict[str, int]) -> None: ...

    search.__annotations__ = {"terms": dict[str, int]}
    assert Tool(search).wire["function"]["strict"] is False
    with pytest.raises(ConfigurationError, match="strict mode cannot express"):
        Tool(search, strict=True)
    assert Tool(nothing, strict=False).wire["function"]["strict"] is False


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        ('{"place": {"city": "Rome"}}', {"place": Place("Rome")}),
        (
            '{"place": {"city": "Rome"}, "days": 5, "tags": ["a"]}',
            {"place": Place("Rome"), "days": 5, "tags": ["a"]},
        ),
        ('{"place": {"city": "Rome"}, "tags": null}', {"place": Place("Rome"), "tags": None}),
        ('{"place": {"city": "Rome"}, "days": null}', {"place": Place("Rome")}),
    ],
)
def test_arguments_as_the_function_takes_them(text, arguments):
    tool = Tool(get_weather)
    for call in (
        text,
        FunctionCall("get_weather", text),
        ToolCall("id", "function", FunctionCall("x", text)),
    ):
        assert tool.parse(call) == arguments
    get_weather(**arguments)


def test_no_arguments_may_be_sent_as_nothing_and_others_encoded_twice():
    assert Tool(nothing).parse("") == {}
    twice = msgspec.json.encode('{"place": {"city": "Rome"}}').decode()
    assert Tool(get_weather).parse(twice) == {"place": Place("Rome")}
    with pytest.raises(ToolArgumentsError, match="it is no JSON"):
        Tool(nothing).parse('"')


@pytest.mark.parametrize(
    ("text", "path", "words"),
    [
        ("{", None, "it is no JSON: it ends too early"),
        ("[]", "$", "Expected `object`, got `array`"),
        ("{}", "$", "missing required field `place`"),
        ('{"place": null}', "$.place", "Expected `object`, got `null`"),
        ('{"place": {"city": "Rome"}, "days": 10}', "$.days", "Expected `int` <= 9"),
        ('{"place": {"city": "Rome"}, "days": "x", "unit": null}', "$.days", "Expected `int`"),
        ('{"place": {"city": "Rome"}, "why": 1}', "$", "unknown field `why`"),
    ],
)
def test_arguments_that_do_not_fit(text, path, words):
    with pytest.raises(ToolArgumentsError, match=words) as caught:
        Tool(get_weather).parse(text)
    error = caught.value
    assert (error.name, error.path, error.body) == ("get_weather", path, text.encode())
    assert error.message.startswith("the arguments for get_weather do not fit: ")


def test_tools_as_they_are_sent():
    described = {"type": "function", "function": {"name": "f", "parameters": {}}}
    search = {"type": "web_search"}
    sent = wired_tools([described, nothing, search, Tool(get_weather), search])
    assert sent[0] is described
    assert [tool.get("function", {}).get("name") for tool in sent] == [
        "f",
        "nothing",
        None,
        "get_weather",
        None,
    ]
    with pytest.raises(ConfigurationError, match="two tools are called nothing"):
        wired_tools([nothing, Tool(nothing)])
    for wrong in ("tools", {"a": 1}, nothing):
        with pytest.raises(ConfigurationError, match="must be a list"):
            wired_tools(wrong)
    assert wired_choice("auto") == "auto"
    assert wired_choice(nothing) == {"type": "function", "function": {"name": "nothing"}}


def test_a_signature_is_read_once_per_function_and_goes_with_it():
    def local(x: int) -> int:
        return x

    assert tool_of(get_weather)._signature is tool_of(get_weather)._signature
    tool = Tool(get_weather)
    assert tool_of(tool) is tool
    local.__annotations__ = {"x": int}
    assert tool_of(local).parse('{"x": 1}') == {"x": 1}
    gone = weakref.ref(local)
    del local
    gc.collect()
    assert gone() is None
