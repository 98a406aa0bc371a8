"""Typed answers, whatever a model writes around and instead of its JSON, cut anywhere.

A value, a way of writing it, what stands around it, and where the text is cut are drawn from a seed;
``partial()`` only ever grows, and the final value is the one that was meant, or there is an error.
"""

import dataclasses
import datetime as dt
import enum
import json
import random
from typing import Annotated, Any, Literal, NamedTuple, TypedDict, get_args

import msgspec
import pytest
from msgspec import UNSET

from konko_async import ChatCompletion, ResponseFormat, StructuredOutputError
from konko_async._structured.models import read_model
from konko_async._structured.partial_json import Growing
from konko_async._structured.partial_types import shape_of
from konko_async._structured.response_format import format_of
from konko_async.wire import ChatCompletionMessage, Choice
from konko_async.wire._validation_errors import MisfitError, decoder_of, read_as

SEEDS = 3000


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Part(msgspec.Struct):
    name: str
    count: int = 1
    tags: list[str] = []
    colour: Colour = Colour.RED


@dataclasses.dataclass
class Place:
    x: int
    y: float | None = None


class Cat(msgspec.Struct, tag="cat"):
    name: str
    lives: int = 9


class Dog(msgspec.Struct, tag="dog"):
    name: str
    good: bool = True


class Extra(TypedDict, total=False):
    note: str
    level: int


# Before 0.20, msgspec cannot describe values of several types (the caller gets a clear error).
OLD = tuple(map(int, msgspec.__version__.split(".")[:2])) < (0, 20)
Kind = Literal["a", "b", "3"] if OLD else Literal["a", "b", 3]


class Order(msgspec.Struct, rename="camel"):
    order_id: str
    parts: list[Part]
    places: tuple[Place, ...] = ()
    pet: Cat | Dog | None = None
    extra: Extra = {}
    by_name: dict[str, list[int]] = {}
    kind: Kind = "a"
    when: dt.date | None = None


def words(rng):
    signs = ["a", "é", "😀", "\n", '"', "\\", "{", "}", "[", "</think>", "```", "<|im_end|>", " "]
    return "".join(rng.choices(signs, k=rng.randrange(5)))


def part(rng):
    return {"name": words(rng), "count": rng.randrange(9), "tags": [words(rng)], "colour": "blue"}


def order(rng):
    pets = [{"type": "cat", "name": words(rng), "lives": rng.randrange(9)},
            {"type": "dog", "name": words(rng), "good": False}, None]  # fmt: skip
    return {
        "orderId": words(rng),
        "parts": [part(rng) for _ in range(rng.randrange(3))],
        "places": [{"x": rng.randrange(9), "y": rng.choice([None, 0.5, 2])}],
        "pet": rng.choice(pets),
        "extra": rng.choice([{}, {"note": words(rng), "level": 1}]),
        "byName": {words(rng): [rng.randrange(9)]},
        "kind": rng.choice(get_args(Kind)),
        "when": rng.choice([None, "2026-01-31"]),
    }


KINDS = [
    (Order, order),
    (Part, part),
    (list[int], lambda rng: [rng.randrange(9) for _ in range(rng.randrange(4))]),
    (list[Part], lambda rng: [part(rng) for _ in range(rng.randrange(3))]),
    (dict[str, int], lambda rng: {"k" + words(rng): rng.randrange(9)}),
    (Cat | Dog, lambda rng: {"type": "cat", "name": words(rng), "lives": 3}),
    (int, lambda rng: rng.randrange(99)),
    (Colour, lambda _: "blue"),
    (Place | None, lambda rng: rng.choice([None, {"x": 1, "y": None}])),
]
FORMS = [ResponseFormat(kind) for kind, _ in KINDS]


def loosely(value, rng):
    """A JSON value as models write it: integers with a point, null for what may be left out."""
    if isinstance(value, dict):
        made = {key: loosely(item, rng) for key, item in value.items()}
        for key in ("lives", "good", "tags", "colour"):
            if key in made and rng.random() < 0.2:
                made[key] = None
        return made
    if isinstance(value, list):
        return [loosely(item, rng) for item in value]
    if type(value) is int and rng.random() < 0.3:
        return float(value)
    return value


def left_out(value):
    """The same without the nulls that stand for a default."""
    if isinstance(value, dict):
        loose = ("lives", "good", "tags", "colour")
        return {k: left_out(v) for k, v in value.items() if v is not None or k not in loose}
    return [left_out(item) for item in value] if isinstance(value, list) else value


BEFORE = ["", "", "", "\n ", "\ufeff", "```json\n", "```", '<think>\nIs it {"a": 1}? [2]\n</think>\n',
          "<|im_start|>", "<thinking>a</thinking>```json\n", "<THINK></think>"]  # fmt: skip
PROSE = [
    "Sure! ",
    "Here it is:\n```json\n",
    "As {name} asked [see below]: ",
    "So it is.\n</think>\n",
]
AFTER = [
    "",
    "",
    "",
    "\n```",
    "```\nI hope this helps.",
    "<|im_end|>",
    "</s>",
    "}",
    " \n",
    "\n\nNote: it's {x}.",
]


class Seed:
    """A text drawn from a seed, and the value that is meant by it."""

    def __init__(self, seed):
        self.rng = rng = random.Random(seed)
        number = rng.randrange(len(KINDS))
        self.kind, draw = KINDS[number]
        self.form: Any = FORMS[number]
        plain = draw(rng)
        loose = loosely(plain, rng)
        self.value = msgspec.convert(left_out(plain_numbers(loose)), self.kind, str_keys=True)
        self.bare = rng.random() < 0.4
        if self.form.wrapped and not self.bare:
            loose = {"value": loose}
        self.json = json.dumps(
            loose, ensure_ascii=rng.random() < 0.5, indent=rng.choice([None, None, 1])
        )
        self.scalar = not self.json.startswith(("{", "["))
        self.prose = rng.random() < 0.2
        self.before = rng.choice(PROSE if self.prose else BEFORE)
        self.after = rng.choice(AFTER)
        if self.scalar:  # nothing tells a bare number from those of the prose
            self.before, self.after = (
                rng.choice(BEFORE),
                rng.choice(["", "```", "<|im_end|>", "\n"]),
            )
        self.text = self.before + self.json + self.after


def plain_numbers(value):
    if isinstance(value, dict):
        whole = {"y"}  # these may have a fraction
        return {k: v if k in whole else plain_numbers(v) for k, v in value.items()}
    if isinstance(value, list):
        return [plain_numbers(item) for item in value]
    return int(value) if type(value) is float else value


def parsed(form, text, finish_reason="stop"):
    message = ChatCompletionMessage(role="assistant", content=text)
    choice = Choice(message=message, finish_reason=finish_reason)
    return form.parse(ChatCompletion(choices=[choice])).parsed


def growing_of(form):
    bare = shape_of(form.kind) if form.wrapped else None
    return Growing(shape_of(form.target), bare, either=form.either)


def shown(growing, form):
    value = growing.value
    return value.value if value is not UNSET and form.wrapped and not growing.is_bare else value


def builtins(value):
    return UNSET if value is UNSET else json.loads(msgspec.json.encode(value))


def is_before(early, late):
    """Whether one value may become the other by growing."""
    if early is UNSET:
        return True
    if isinstance(early, str):
        return isinstance(late, str) and late.startswith(early)
    if isinstance(early, list):
        return (
            isinstance(late, list) and len(early) <= len(late) and all(map(is_before, early, late))
        )
    if isinstance(early, dict):
        return early.keys() <= late.keys() and all(is_before(early[k], late[k]) for k in early)
    return early == late


def holds(partial, final):
    """Whether a grown value holds what the final one does, but for defaults that were not there."""
    if isinstance(partial, dict) and isinstance(final, dict):
        return all(k in final and holds(v, final[k]) for k, v in partial.items())
    if isinstance(partial, list) and isinstance(final, list):
        return len(partial) == len(final) and all(map(holds, partial, final))
    return partial == final


def grow(seed):
    """Feed a text in pieces, checking that the value only grows."""
    growing, before, place = growing_of(seed.form), UNSET, 0
    while place < len(seed.text):
        size = seed.rng.choice([1, 1, 2, 3, 7, 40])
        growing.feed(seed.text[place : place + size])
        place += size
        now = builtins(shown(growing, seed.form))
        assert is_before(before, now), (before, now)
        before = now
    return growing, before


@pytest.mark.parametrize("start", range(0, SEEDS, 500))
def test_the_value_that_is_meant_is_found_and_only_ever_grows(start):
    late = 0
    for number in range(start, start + 500):
        seed = Seed(number)
        note = (number, seed.text)
        final = parsed(seed.form, seed.text)
        assert final == seed.value, note
        assert type(final) is type(seed.value), note
        growing, last = grow(seed)
        if growing.complete:
            assert holds(last, builtins(final)), (note, last)
        else:  # it is shown in the end, as the final value itself
            assert seed.prose or seed.scalar, note
            assert last is UNSET, note
            late += 1
    assert 50 < late < 250  # both kinds are among them


def test_of_a_text_that_is_cut_there_is_the_value_or_an_error():
    values = errors = complete = 0
    reasons = set()
    for number in range(SEEDS):
        seed = Seed(number)
        cut = seed.text[: seed.rng.randrange(len(seed.text) + 1)]
        growing = growing_of(seed.form)
        growing.feed(cut)
        try:
            final = parsed(seed.form, cut, "length")
        except StructuredOutputError as error:
            reasons.add(error.reason)
            complete += growing.complete
            errors += 1
        else:
            # A number that stands alone may be the beginning of a longer one.
            assert final == seed.value or seed.scalar, (number, cut)
            values += 1
    assert reasons == {"length"}
    assert complete == 0  # nothing is shown whole and then refused
    assert values > SEEDS / 20
    assert errors > SEEDS / 4


def test_two_values_of_the_type_are_not_one():
    for number in range(500):
        seed = Seed(number)
        if seed.scalar or seed.json in {'{"value": []}', "[]"}:
            continue
        other = json.loads(seed.json)
        assert parsed(seed.form, f"{seed.json}\n{seed.json}") == seed.value
        changed = (
            {**other, "name": "other", "orderId": "other"}
            if isinstance(other, dict)
            else [*other, *other]
        )
        try:
            if parsed(seed.form, json.dumps(changed)) == seed.value:
                continue
        except StructuredOutputError:
            continue
        for text in (
            f"{seed.json}\n{json.dumps(changed)}",
            f"Or {json.dumps(changed)}, or {seed.json}?",
        ):
            with pytest.raises(StructuredOutputError, match="more than one value"):
                parsed(seed.form, text)


def test_a_fence_with_too_much_behind_it_is_prose():
    form = ResponseFormat(Part)
    words = "x" * 50
    assert parsed(form, f'```{words}\n{{"name": "a"}}').name == "a"
    growing = growing_of(form)
    growing.feed(f"```{words}\n")
    assert shown(growing, form) is UNSET


def test_brackets_without_end_cost_no_time_without_end():
    form = ResponseFormat(Part)
    with pytest.raises(StructuredOutputError):
        parsed(form, "so: " + "[1] {x} " * 4000)


def test_prose_without_any_value_is_no_json():
    for kind in (Part, list[int], int):
        with pytest.raises(StructuredOutputError, match="no JSON"):
            parsed(ResponseFormat(kind), "I would rather not.")


def test_a_value_said_twice_in_prose_is_one():
    form = ResponseFormat(Part)
    twice = 'First {"name": "a"}, and so: {"name":"a"}.'
    assert parsed(form, twice).name == "a"
    with pytest.raises(StructuredOutputError, match="more than one"):
        parsed(form, 'First {"name": "a"}, and so: {"name": "b"}.')


def test_ctrl_c_while_a_value_is_read_is_no_misfit():
    class Stopping(msgspec.Struct):
        name: str

        def __post_init__(self):
            raise KeyboardInterrupt

    for text in ('{"name": "a"}', 'So: {"name": "a"}.'):
        with pytest.raises(KeyboardInterrupt):
            parsed(ResponseFormat(Stopping), text)


def test_an_error_without_words_is_named_by_its_type():
    class SilentError(Exception):
        def __str__(self):
            raise RuntimeError

    class Refused(msgspec.Struct):
        name: str

        def __post_init__(self):
            raise SilentError

    with pytest.raises(StructuredOutputError, match="Silent"):
        parsed(ResponseFormat(Refused), '{"name": "a"}')


def test_types_that_cannot_be_hashed_are_read_like_others():
    kind = Annotated[list[int], ["a remark"]]
    with pytest.raises(TypeError):
        hash(kind)
    form = format_of(kind)
    assert parsed(form, "[1, 2]") == [1, 2]
    growing = growing_of(form)
    growing.feed("[1, 2")
    assert shown(growing, form) == [1]
    with pytest.raises(StructuredOutputError):
        parsed(form, '["a"]')


def test_a_format_shows_what_it_is():
    assert repr(ResponseFormat(Part)) == "ResponseFormat(Part, strict=True)"


def test_places_of_tuples_and_of_structs_that_are_lists_grow():
    class Pair(NamedTuple):
        name: str
        count: int

    class Row(msgspec.Struct, array_like=True):
        name: str
        parts: list[int]

    class Both(msgspec.Struct):
        pair: Pair
        row: Row

    form = ResponseFormat(Both, strict=False)
    growing = growing_of(form)
    growing.feed('{"pair": ["a", 1], "row": ["b", [1, 2')
    assert builtins(shown(growing, form)) == {"pair": ["a", 1], "row": ["b", [1]]}


def test_a_validator_that_raises_by_itself_is_a_misfit():
    class Own:
        @staticmethod
        def model_validate(_value):
            raise ValueError("not today")

    with pytest.raises(MisfitError, match="not today"):
        read_model('{"name": "a"}', Own, Own.model_validate)


def misfit(value, kind):
    with pytest.raises(MisfitError) as caught:
        read_as(json.dumps(value), kind, decoder_of(kind))
    return caught.value.path


def test_the_key_at_fault_is_found_though_a_check_of_the_type_fails_without_it():
    class Sheet(msgspec.Struct):
        cells: dict[str, int]

        def __post_init__(self):
            if len(self.cells) < 6:  # while entries are taken away, to find the one at fault
                raise RuntimeError("too few cells")

    cells = dict.fromkeys("abcdef", 1) | {"d": "x"}
    assert misfit({"cells": cells}, Sheet) == "$.cells['d']"


def test_a_path_that_cannot_be_followed_is_left_as_it_is():
    class Odd(msgspec.Struct):
        dotted: dict[str, int] = msgspec.field(name="a.b", default_factory=dict)
        other: int = msgspec.field(name="x", default=0)
        bracketed: int = msgspec.field(name="x[...]", default=0)

    assert misfit({"a.b": {"k": "x"}}, Odd) == "$.a.b[...]"
    assert misfit({"x": 1, "x[...]": "x"}, Odd) == "$.x[...]"
