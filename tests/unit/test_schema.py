"""Types to schemas: what strict mode takes, and what msgspec still knows."""

import datetime as dt
import decimal
import enum
import itertools
import json
import uuid
from dataclasses import dataclass
from typing import (
    Annotated,
    Any,
    Generic,
    Literal,
    NamedTuple,
    NotRequired,
    Optional,
    TypedDict,
    TypeVar,
    Union,
)

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Meta

from konko_async import ConfigurationError, ResponseFormat
from konko_async._structured.docstring import read_docstring
from konko_async._structured.json_schema import _types, make_schema, schema_name
from konko_async.testing._emulator.content.schema_example import example
from konko_async.testing._emulator.strict_schema import strict_problem

T = TypeVar("T")


class Colour(enum.Enum):
    """A colour."""

    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1


class Point(NamedTuple):
    x: int
    y: int


@dataclass
class Box:
    width: int
    corner: Point
    depth: int = 1


class Options(TypedDict):
    verbose: bool
    level: NotRequired[Level]


class Circle(msgspec.Struct, tag="circle"):
    radius: float


class Square(msgspec.Struct, tag="square"):
    side: float


class Node(msgspec.Struct):
    value: int
    left: "Node | None" = None
    right: "Node | None" = None


class Page(msgspec.Struct, Generic[T]):
    items: list[T]


class Row(msgspec.Struct, array_like=True):
    a: int
    b: str


class Everything(msgspec.Struct, rename="camel"):
    """All there is.

    More of it.

    Attributes:
        full_name: what it is called,
            in full
        unknown: no such field
    """

    full_name: str
    short: Annotated[
        str, Meta(min_length=1, max_length=9, pattern="^[a-z]+$", description="In short")
    ]
    colour: Colour
    level: Level
    box: Annotated[Box, Meta(description="Where it is in.")]
    options: Options
    shape: Circle | Square
    tree: Node | None
    page: Page[int]
    pair: tuple[int, int]
    many: tuple[float, ...]
    ids: set[int]
    when: dt.datetime
    zoned: Annotated[dt.datetime, Meta(tz=True)]
    days: list[dt.date | None]
    times: list[dt.time]
    span: dt.timedelta
    key: uuid.UUID
    cost: decimal.Decimal
    data: bytes
    choice: Literal["a", "b"]
    mixed: Literal["a"] | None
    number: Annotated[int, Meta(ge=0, lt=10, multiple_of=2)] = 4
    tags: Annotated[list[str], Meta(max_length=3)] = []
    maybe: int | None = None
    other: int | msgspec.UnsetType = msgspec.UNSET


SCHEMA = make_schema(Everything)
PROPERTIES = SCHEMA.schema["properties"]


def test_everything_is_strict_and_its_example_can_be_read():
    assert SCHEMA.strict
    assert strict_problem(SCHEMA.schema) is None
    found = {**example(SCHEMA.schema), "cost": "1.5", "data": "", "short": "a",
             "box": {"width": 1, "corner": [1, 2], "depth": 2}}  # fmt: skip
    value = msgspec.json.decode(json.dumps(found), type=Everything)
    assert value.box.depth == 2


def test_every_field_is_required_and_defaults_are_said():
    assert SCHEMA.schema["required"] == list(PROPERTIES)
    assert PROPERTIES["number"] == {
        "type": "integer", "minimum": 0, "exclusiveMaximum": 10, "multipleOf": 2, "description": "Default: 4.",
    }  # fmt: skip
    assert PROPERTIES["tags"]["description"] == "Default: []."
    assert PROPERTIES["tags"]["maxItems"] == 3
    assert "description" not in PROPERTIES["maybe"]


def test_what_strict_mode_has_no_keyword_for_is_said_in_words():
    assert PROPERTIES["short"]["description"] == "In short. Minimum length: 1. Maximum length: 9."
    assert PROPERTIES["short"]["pattern"] == "^[a-z]+$"
    assert PROPERTIES["cost"] == {"type": "string", "description": "A decimal."}
    assert PROPERTIES["data"] == {"type": "string", "description": "In base64."}
    assert PROPERTIES["ids"] == {"type": "array", "items": {"type": "integer"}}


def test_times_have_formats_everywhere():
    assert PROPERTIES["when"] == PROPERTIES["zoned"] == {"type": "string", "format": "date-time"}
    assert PROPERTIES["days"]["items"]["anyOf"][0] == {"type": "string", "format": "date"}
    assert PROPERTIES["times"]["items"] == {"type": "string", "format": "time"}


def test_tuples_are_arrays_of_a_length():
    assert PROPERTIES["pair"]["items"] == {"type": "integer"}
    assert make_schema(tuple[int, str]).schema["properties"]["value"] == {
        "type": "array", "minItems": 2, "maxItems": 2, "prefixItems": [{"type": "integer"}, {"type": "string"}],
    }  # fmt: skip


def test_references_stand_alone():
    assert PROPERTIES["box"] == {
        "anyOf": [{"$ref": "#/$defs/Box"}],
        "description": "Where it is in.",
    }
    assert PROPERTIES["colour"] == {"$ref": "#/$defs/Colour"}
    assert SCHEMA.schema["$defs"]["Colour"] == {
        "enum": ["blue", "red"], "type": "string", "description": "A colour.",
    }  # fmt: skip
    assert PROPERTIES["mixed"]["anyOf"][0] == {"enum": ["a"], "type": "string"}
    assert _types([1, "a", 2, None, True]) == ["integer", "string", "null", "boolean"]


def test_docstrings_describe():
    assert SCHEMA.description == "All there is.\n\nMore of it."
    assert PROPERTIES["fullName"]["description"] == "what it is called, in full"
    assert make_schema(Box).description == ""  # what dataclasses make up themselves says nothing


def test_a_type_that_holds_itself_is_at_the_root_and_among_the_definitions():
    schema = make_schema(Node).schema
    assert schema["type"] == "object"
    assert list(schema["$defs"]) == ["Node"]
    assert strict_problem(schema) is None


@pytest.mark.parametrize(
    "kind", [list[int], list[Box], Circle | Square, Point, tuple[int, int], int, Colour, Box | None, str]
)  # fmt: skip
def test_what_is_no_object_stands_in_one(kind):
    made = make_schema(kind)
    assert made.wrapped
    assert made.schema["required"] == ["value"]
    assert strict_problem(made.schema) is None


@pytest.mark.parametrize(
    "kind", [Box, Options, Node, Page[str], Circle, Annotated[Box, Meta(title="a")]]
)
def test_objects_stand_for_themselves(kind):
    made = make_schema(kind)
    assert not made.wrapped
    assert strict_problem(made.schema) is None


class Loose(msgspec.Struct):
    inner: "list[Open]"


class Open(msgspec.Struct):
    extra: dict[str, int]


class OpenAny(msgspec.Struct):
    a: int
    extra: Any


@pytest.mark.parametrize(
    ("kind", "place"),
    [
        (Loose, "Open.extra"),
        (OpenAny, "OpenAny.extra"),
        (dict[str, int], "$.value"),
        (list, "$.value"),
        (Row, "Row"),
        (tuple[int, str], "$.value"),
    ],
)
def test_what_strict_mode_cannot_express_is_not_sent_as_strict(kind, place):
    made = make_schema(kind)
    assert not made.strict
    assert made.loose.startswith(place)
    assert ResponseFormat(kind).wire["json_schema"]["strict"] is False
    with pytest.raises(ConfigurationError, match="strict mode cannot express"):
        ResponseFormat(kind, strict=True)


@pytest.mark.parametrize("kind", [type("Plain", (), {}), object, 5, "Box", lambda: 1, ..., "nope"])
def test_what_msgspec_does_not_know_is_said(kind):
    with pytest.raises(ConfigurationError, match=r"msgspec\.Struct"):
        make_schema(kind)


def test_two_types_of_one_name_stay_apart_or_are_refused():
    # msgspec raises before 0.23, and gives each a name of its own since.
    one, other = (msgspec.defstruct("Same", [("a", kind)]) for kind in (int, str))
    kind = msgspec.defstruct("Both", [("one", one), ("other", other)])
    if tuple(map(int, msgspec.__version__.split(".")[:2])) < (0, 23):
        with pytest.raises(ConfigurationError, match="two types in it have one name"):
            make_schema(kind)
        return
    schema = make_schema(kind).schema
    types = {}
    for field in ("one", "other"):
        name = schema["properties"][field]["$ref"].removeprefix("#/$defs/")
        assert name == schema_name(name)
        types[field] = schema["$defs"][name]["properties"]["a"]["type"]
    assert types == {"one": "integer", "other": "string"}
    assert strict_problem(schema) is None


def test_names_are_what_servers_take():
    assert ResponseFormat(Page[int]).name == "Page"
    assert ResponseFormat(list[int]).name == "list"
    assert ResponseFormat(Circle | Square).name == "answer"
    assert ResponseFormat(Union[Circle, Square]).name == "answer"  # noqa: UP007 - on 3.11 another class
    assert ResponseFormat(Optional[Box]).name == "answer"  # noqa: UP045 - its name is "Optional"
    assert (
        ResponseFormat(Box, name="ein Käfig!", description="d").wire["json_schema"]["name"]
        == "ein_K_fig_"
    )
    assert len(schema_name("x" * 99)) == 64


numbers = itertools.count()
leaves = st.sampled_from(
    [int, str, float, bool, Colour, Box, Options, dt.date, Literal["a"], Circle | Square]
)
kinds = st.recursive(
    leaves,
    lambda inner: (
        st.builds(lambda k: list[k], inner)
        | st.builds(lambda k: k | None, inner)
        | st.builds(lambda k: tuple[k, k], inner)
        | st.builds(
            lambda ks: msgspec.defstruct(
                f"Made{next(numbers)}", [(f"f{i}", k) for i, k in enumerate(ks)]
            ),
            st.lists(inner, max_size=3),
        )
    ),
    max_leaves=5,
)


@settings(max_examples=100, deadline=None)
@given(kinds)
def test_every_type_without_open_ends_is_strict(kind):
    made = make_schema(kind)
    assert made.strict
    assert strict_problem(made.schema) is None
    json.dumps(made.schema)


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        ({"type": "array", "items": {"type": "string"}}, "schema must be a JSON Schema of 'type: \"object\"'"),
        ({"type": "object", "properties": {}}, "'additionalProperties' is required"),
        ({"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": False}, "Missing 'a'"),
        ({"type": "object", "properties": {"a": {"type": "string", "minLength": 1}}, "required": ["a"],
          "additionalProperties": False}, "'minLength' is not permitted"),
        ({"type": "object", "properties": {"a": {"$ref": "#/$defs/b", "description": ""}}, "required": ["a"],
          "additionalProperties": False}, "$ref cannot have keywords"),
        ({"type": "object", "properties": {"a": {}}, "required": ["a"], "additionalProperties": False}, "'type' key"),
        ({"type": "object", "properties": {"a": {"type": "array"}}, "required": ["a"],
          "additionalProperties": False}, "missing items"),
        ({"type": "object", "properties": {"a": {"type": "string", "format": "decimal"}}, "required": ["a"],
          "additionalProperties": False}, "'decimal' is not a valid format"),
        ({"type": "object", "properties": {"a": 1}, "required": ["a"], "additionalProperties": False}, "an object"),
    ],
)  # fmt: skip
def test_the_emulators_strict_mode_refuses(schema, problem):
    assert problem in strict_problem(schema)


@pytest.mark.parametrize(
    ("text", "description", "parts"),
    [
        (None, "", {}),
        ("One line.", "One line.", {}),
        ("""Do it.

        Args:
            a: first
            b (int, optional): second:
                with more

                and more
            *c: third
        Returns:
            d: no part

        """, "Do it.", {"a": "first", "b": "second: with more and more", "c": "third"}),
        ("Args:\n    a: first\n\nRaises:\n    ValueError: no part", "", {"a": "first"}),
        ("Note: this is no section.", "Note: this is no section.", {}),
        ("Do.\n\nArgs:\n", "Do.", {}),
        ("Do.\n\nArgs:\n    a: first\nAnd then?\nRest.", "Do.\n\nRest.", {"a": "first"}),
        ("Do.\n\nRaises:\n    E: no\nStill no part of it.", "Do.", {}),
        ("Do.\n\nArgs:\n    no entry\n    a:\n        below", "Do.", {"a": "below"}),
    ],
)  # fmt: skip
def test_docstrings(text, description, parts):
    assert read_docstring(text) == (description, parts)


def test_a_docstring_of_fields_alone_describes_them():
    class Fields(msgspec.Struct):
        size: int

    Fields.__doc__ = "\nAttributes:\n    size: in bytes.\n"
    made = make_schema(Fields).schema
    assert "description" not in made
    assert made["properties"]["size"]["description"] == "in bytes."


def test_a_pattern_that_strict_mode_has_no_form_for_is_said_in_words():
    field = make_schema(
        msgspec.defstruct("Coded", [("code", Annotated[str, Meta(pattern=r"^(?i:ab)$")])])
    ).schema["properties"]["code"]
    assert "pattern" not in field
    assert field["description"] == "Matches the regular expression ^(?i:ab)$"


def test_a_struct_with_a_remark_is_that_struct():
    made = make_schema(Annotated[Box, Meta(description="where it goes")])
    assert set(made.schema["properties"]) == {"width", "corner", "depth"}
    assert not made.wrapped


def test_dicts_of_anything_are_left_open():
    made = make_schema(msgspec.defstruct("Open", [("more", dict[str, Any])]))
    assert made.loose
