"""Values that grow with their JSON: the same at every cut, and for a cost that grows with length."""

import datetime as dt
import enum
import json
import math
import sys
import time
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal, TypedDict

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import UNSET

from konko_async._structured.partial_json import Growing
from konko_async._structured.partial_types import ANYTHING, shape_of


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Part(msgspec.Struct):
    name: str
    count: int
    price: float = 1.0
    colour: Colour = Colour.RED


class Extra(TypedDict, total=False):
    note: str
    level: int


@dataclass
class Place:
    x: int
    y: float | None


class Cat(msgspec.Struct, tag="cat"):
    name: str
    lives: int


class Dog(msgspec.Struct, tag="dog"):
    name: str
    good: bool


class Order(msgspec.Struct, rename="camel"):
    order_id: str
    parts: list[Part]
    when: dt.datetime | None
    extra: Extra
    places: list[Place]
    pet: Cat | Dog
    kind: Literal["a", "b"]
    anything: Any
    by_name: dict[str, list[int]]
    pair: tuple[int, str]
    cost: Decimal
    parent: "Order | None" = None


texts = st.text(max_size=12)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**6), 10**6) | st.floats(-1e6, 1e6) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
parts = st.builds(Part, texts, st.integers(0, 99), st.floats(0, 9), st.sampled_from(Colour))
orders = st.builds(
    Order,
    order_id=texts,
    parts=st.lists(parts, max_size=3),
    when=st.none() | st.datetimes(),
    extra=st.fixed_dictionaries({}, optional={"note": texts, "level": st.integers(0, 9)}),
    places=st.lists(st.builds(Place, st.integers(0, 9), st.none() | st.floats(0, 9)), max_size=2),
    pet=st.builds(Cat, texts, st.integers(0, 9)) | st.builds(Dog, texts, st.booleans()),
    kind=st.sampled_from(["a", "b"]),
    anything=json_values,
    by_name=st.dictionaries(texts, st.lists(st.integers(0, 9), max_size=2), max_size=2),
    pair=st.tuples(st.integers(0, 9), texts),
    cost=st.decimals(0, 9, places=2),
    parent=st.none(),
)
written = st.sampled_from(
    [
        json.dumps,
        lambda value: json.dumps(value, ensure_ascii=False),
        lambda value: json.dumps(value, indent=2),
        lambda value: f"```json\n{json.dumps(value)}\n```",
    ]
)


def grown(shape, pieces):
    growing = Growing(shape)
    for piece in pieces:
        growing.feed(piece)
    return growing


def plain(value):
    """As JSON has it: lists for tuples."""
    return json.loads(msgspec.json.encode(value))


@settings(max_examples=60, deadline=None)
@given(orders, written, st.data())
def test_the_end_is_what_the_whole_is_however_it_is_cut(order, write, data):
    text = write(plain(order))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    growing = grown(shape_of(Order), pieces)
    assert growing.complete
    assert not growing.broken
    assert plain(growing.value) == plain(order)
    assert growing.value.when == order.when  # not its text
    assert all(type(part.colour) is Colour for part in growing.value.parts)


@settings(max_examples=40, deadline=None)
@given(st.dictionaries(texts, json_values, max_size=4))
def test_anything_at_all_at_every_single_cut(value):
    text = json.dumps(value)
    whole = json.loads(text)
    assert grown(ANYTHING, text).value == whole  # a character at a time
    for cut in range(len(text)):
        assert grown(ANYTHING, [text[:cut], text[cut:]]).value == whole


def is_before(early, late):
    """Whether one value may become the other by growing."""
    if early is UNSET:
        return True
    if isinstance(early, str):
        return isinstance(late, str) and late.startswith(early)
    if isinstance(early, list):
        return len(early) <= len(late) and all(map(is_before, early, late))
    if isinstance(early, dict):
        return early.keys() <= late.keys() and all(is_before(early[k], late[k]) for k in early)
    return early == late


@settings(max_examples=30, deadline=None)
@given(orders)
def test_it_only_ever_grows_and_says_when(order):
    text = json.dumps(plain(order))
    growing = Growing(shape_of(Order))
    before = UNSET
    for sign in text:
        changed = growing.feed(sign)
        now = UNSET if growing.value is UNSET else plain(growing.value)
        assert is_before(before, now)
        assert changed == (now != before or type(now) is not type(before)), sign
        before = now


def test_what_is_there_when():
    growing = Growing(shape_of(Order))
    assert not growing.feed(" \n")
    assert growing.value is UNSET
    assert growing.feed('{"orderI')
    assert growing.value.order_id is UNSET
    assert not growing.feed('d": ')
    assert growing.feed('"a')
    order = growing.value
    assert order.order_id == "a"
    assert order.parts is UNSET
    assert not order.parts
    assert growing.feed('b", "parts": [{"name": "bo')
    assert growing.value is order
    assert order.order_id == "ab"
    assert (order.parts[0].name, order.parts[0].count) == ("bo", UNSET)
    assert growing.feed('lt", "count": 12')
    assert (order.parts[0].name, order.parts[0].count) == ("bolt", UNSET)  # or 123
    assert growing.feed(" ")
    assert order.parts[0].count == 12
    assert not growing.feed(', "price": ')
    assert growing.feed('2, "colour": "re')
    assert order.parts[0].price == 2.0
    assert type(order.parts[0].price) is float
    assert order.parts[0].colour is UNSET  # no colour is called "re"
    assert growing.feed('d"}, ')
    assert order.parts[0].colour is Colour.RED
    assert growing.feed('{}], "pet": {"type": "do')
    assert order.pet.type is UNSET
    growing.feed('g", "name": "Rex", "kind": 1, "good": tr')
    assert (order.pet.type, order.pet.name, order.pet.good) == ("dog", "Rex", UNSET)
    assert not hasattr(order.pet, "kind")
    assert growing.feed('ue}, "parent": {"orderId": "c')
    assert order.parent.order_id == "c"
    assert not growing.complete


def test_properties_that_the_type_has_not_change_nothing():
    growing = Growing(shape_of(Part))
    assert growing.feed("{")
    assert not growing.feed('"other": {"name": ["x", {"y": "z"}], "count": 1},')
    assert growing.feed('"name": "a"}')
    assert growing.value.name == "a"
    assert growing.complete
    assert not growing.feed("and more")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (r'{"a": "\ud83d\ude00\n\/\\\"\u00e9"}', '😀\n/\\"é'),
        (r'{"a": "\ud83d"}', "\ufffd"),
        (r'{"a": "\ude00x"}', "\ufffdx"),
        (r'{"a": "\ud83d\ud83d\ude00"}', "\ufffd😀"),
        (r'{"a": "\ud83dA"}', "\ufffdA"),
        (r'{"a": "\ud83d\n"}', "\ufffd\n"),
        ('{"a": "tab\there"}', "tab\there"),
        ('{"a": "", "a": "b"}', "b"),
        ('\ufeff{"a": []}', []),
        ('{"a": [[[]], {}]}', [[[]], {}]),
        ('{"a":-1.5e3}', -1500.0),
        ('{"a": NaN}', None),
        ('```\n{"a": 1}', 1),
        ('```json {"a": 1}```', 1),
    ],
)
def test_odd_texts_at_every_cut(text, value):
    for cut in range(len(text) + 1):
        growing = grown(ANYTHING, [text[:cut], text[cut:]])
        assert growing.complete, cut
        found = growing.value["a"]
        assert found == value or (value is None and math.isnan(found))


@pytest.mark.parametrize(
    "text",
    ["Sure! {}", '"a"', "[1]", "{a: 1}", '{"a" 1}', '{"a": tru}', '{"a": }', '{"a": 1 2}', '{"a": [1,]}',
     '{"a": 1,}', '{"a": "\\x12345"}', "```json\n" + "no" * 20, "`" * 50, '{"a": [1}'],
)  # fmt: skip
def test_what_is_no_json_breaks_it_and_keeps_what_there_was(text):
    growing = grown(ANYTHING, text)
    assert growing.broken
    assert not growing.complete
    assert not growing.feed('{"a": 1}')


@pytest.mark.parametrize(
    "text", ["", "  ", "``", '{"a', '{"a": 12', '{"a": "x', '{"a": "\\u12', "{", '{"a": [']
)
def test_what_is_not_over_is_neither_complete_nor_broken(text):
    growing = grown(ANYTHING, [text])
    assert (growing.complete, growing.broken) == (False, False)


def test_a_value_of_the_wrong_kind_stays_as_it_is():
    text = '{"orderId": 5, "parts": {"a": 1}, "when": "soon", "places": "none", "pair": {"b": [2]}}'
    value = grown(shape_of(Order), [text]).value
    assert (value.order_id, value.parts, value.when) == (5, {"a": 1}, "soon")
    assert (value.places, value.pair) == ("none", {"b": [2]})


def work(pieces):
    """Return how many calls of Python and C functions feeding takes."""
    growing, count = Growing(shape_of(Order)), 0

    def counted(frame, event, argument):
        nonlocal count
        count += event in {"call", "c_call"}

    sys.setprofile(counted)
    try:
        for piece in pieces:
            growing.feed(piece)
    finally:
        sys.setprofile(None)
    return count


def long_answer(number):
    part = {"name": "a name\n", "count": 5, "price": 0.5, "colour": "blue"}
    return json.dumps({"orderId": "x" * number, "parts": [part] * number})


def test_the_work_grows_with_the_length_and_not_with_its_square():
    small, large = long_answer(50), long_answer(500)
    ratio = work(large) / work(small)
    assert ratio == pytest.approx(len(large) / len(small), rel=0.1)
    # Not with the number of pieces times the length either: one piece costs what many do, or less.
    assert work([large]) < work(large)


@pytest.mark.skipif(
    sys.gettrace() is not None, reason="a traced interpreter copies texts it adds to"
)
def test_a_long_text_is_not_copied_for_each_piece():
    def seconds(pieces):
        growing = Growing(shape_of(Part))
        growing.feed('{"name": "')
        started = time.process_time()
        for _ in range(pieces):
            growing.feed("x" * 100)
        spent = time.process_time() - started
        assert len(growing.value.name) == 100 * pieces
        return spent

    seconds(1000)
    # Copying would move 80 GB for the long one, which takes 10 s where memory is fast.
    assert seconds(40_000) < 40 * 10 * max(seconds(1000), 0.002)
