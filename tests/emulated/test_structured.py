"""``response_format=`` a type: over sockets, whole, streamed, mapped, and wrong."""

# ruff: noqa: SIM117, S301 - a line for each thing that is opened

import copy
import json
import pickle
from dataclasses import dataclass
from typing import TypedDict

import msgspec
import pytest
from client_kit import ASK, KEY, MODEL, make_client, serving
from msgspec import UNSET

from konko_async import (
    ChatStream,
    ConfigurationError,
    ParsedChatCompletion,
    ParsedChatStream,
    ResponseDecodeError,
    ResponseFormat,
    StreamTruncatedError,
    StructuredOutputError,
    ToolArgumentsError,
)
from konko_async.testing import Answer, Emulator, FaultServer


class Item(msgspec.Struct):
    name: str
    price: float
    tags: dict[str, int] = {}


class Invoice(msgspec.Struct):
    """An invoice."""

    items: list[Item]
    total: float
    note: str | None = None


class Where(TypedDict):
    city: str


@dataclass
class Size:
    width: int


GOOD = {
    "items": [{"name": "a", "price": 1}, {"name": "é😀", "price": 2.5}],
    "total": 3.5,
    "note": None,
}
PARSED = Invoice([Item("a", 1.0), Item("é😀", 2.5)], 3.5)
TEXT = json.dumps(GOOD)


def said(text, **more):
    return Answer.whole(text, **more)


async def ask(answer, kind=Invoice, **more):
    async with serving(FaultServer(answer)) as client:
        return await client.chat.completions.create(**ASK, response_format=kind, **more)


async def failure(answer, kind=Invoice, **more):
    with pytest.raises(StructuredOutputError) as caught:
        await ask(answer, kind, **more)
    return caught.value


# -- what is sent, and what comes back -------------------------------------------------------------


async def test_the_schema_is_sent_and_the_answer_comes_back_as_the_type():
    async with Emulator(api_keys=[KEY]) as emulator, make_client(emulator) as client:
        whole = await client.chat.completions.create(**ASK, response_format=Invoice)
        sent = emulator.requests[-1].body["response_format"]
    assert type(whole) is ParsedChatCompletion
    assert type(whole.parsed) is Invoice
    assert whole.choices[0].message.parsed is whole.parsed
    assert whole.request_id
    assert whole.raw["choices"][0]["message"]["content"] == whole.choices[0].message.content
    assert sent["type"] == "json_schema"
    named = sent["json_schema"]
    assert (named["name"], named["description"], named["strict"]) == (
        "Invoice",
        "An invoice.",
        False,
    )
    assert named["schema"]["required"] == ["items", "total", "note"]


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (Where, '{"city": "Rome"}', {"city": "Rome"}),
        (Size, '{"width": 5}', Size(5)),
        (list[Size], '{"value": [{"width": 5}]}', [Size(5)]),
        (Size | None, '{"value": null}', None),
        (int, '{"value": 5}', 5),
        (Invoice, f"```json\n{TEXT}\n```", PARSED),
        (Invoice, f"\ufeff ```\n{TEXT}```  \n", PARSED),
        (Invoice, f"```{TEXT}", PARSED),
        (Size, '{"width": 5, "more": "\\ud83d"}', Size(5)),
    ],
)
async def test_types_and_ways_of_writing(kind, text, value):
    whole = await ask(said(text), kind)
    assert whole.parsed == value


async def test_a_format_may_have_a_name_and_leave_strict_mode():
    form = ResponseFormat(list[Size], name="sizes", description="Of boxes", strict=False)
    server = FaultServer(said('{"value": []}'))
    async with serving(server) as client:
        whole = await client.chat.completions.create(**ASK, response_format=form)
    named = json.loads(server.requests[0].body)["response_format"]["json_schema"]
    assert (named["name"], named["description"], named["strict"]) == ("sizes", "Of boxes", False)
    assert whole.parsed == []


async def test_a_dict_goes_as_it_is():
    server = FaultServer(said("no JSON"))
    async with serving(server) as client:
        whole = await client.chat.completions.create(**ASK, response_format={"type": "json_object"})
    assert json.loads(server.requests[0].body)["response_format"] == {"type": "json_object"}
    assert not isinstance(whole, ParsedChatCompletion)


async def test_the_answer_can_be_sent_back_copied_and_pickled():
    server = FaultServer(said(TEXT))
    async with serving(server) as client:
        whole = await client.chat.completions.create(**ASK, response_format=Invoice)
        messages = [*ASK["messages"], whole.choices[0].message, {"role": "user", "content": "And?"}]
        await client.chat.completions.create(model=MODEL, messages=messages)
    assert json.loads(server.requests[1].body)["messages"][1] == {
        "role": "assistant",
        "content": TEXT,
    }
    for other in (copy.copy(whole), copy.deepcopy(whole), pickle.loads(pickle.dumps(whole))):
        assert other == whole
        assert other.parsed == PARSED
        assert other.raw == whole.raw


@pytest.mark.parametrize("kind", ["json", object, 5, type("Plain", (), {})])
async def test_what_is_no_type_is_refused_before_anything_is_sent(kind):
    server = FaultServer(said(TEXT))
    async with serving(server) as client:
        for call in (client.chat.completions.stream, client.chat.completions.create):
            with pytest.raises(ConfigurationError):
                made = call(**ASK, response_format=kind)
                await made
    assert not server.requests


# -- what is wrong with an answer ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "path", "expected"),
    [
        ({"total": "x"}, "$.total", "Expected `float`, got `str`"),
        ({"items": [*GOOD["items"], {"name": "c", "price": "5"}]}, "$.items[2].price", "Expected `float`, got `str`"),
        ({"items": [{"name": "a", "price": 1, "tags": {"k": 1, "l": 2, "m": "x", "n": "y"}}]},
         "$.items[0].tags['m']", "Expected `int`, got `str`"),
        ({"items": [{"price": 1}]}, "$.items[0]", "Object missing required field `name`"),
    ],
)  # fmt: skip
async def test_a_value_that_does_not_fit_is_named_with_its_place(change, path, expected):
    error = await failure(said(json.dumps({**GOOD, **change})))
    assert isinstance(error, ResponseDecodeError)
    assert (error.reason, error.path, error.expected) == ("invalid", path, expected)
    assert error.message == f"the answer is no Invoice: {expected} at {path}"
    assert error.completion.choices[0].message.content == json.dumps({**GOOD, **change})
    assert error.completion.choices[0].message.parsed is None
    assert len(error.attempts) == 1
    assert not error.retryable
    again = pickle.loads(pickle.dumps(error))
    assert (again.path, again.reason) == (path, "invalid")


@pytest.mark.parametrize(
    ("answer", "reason", "words"),
    [
        (said("Sure! Here it is."), "invalid", "it is no JSON: malformed at byte 0"),
        (said(TEXT[:40]), "invalid", "it is no JSON: it ends too early at byte 40"),
        (said(TEXT[:40], finish_reason="length"), "length", "cut by max_tokens"),
        (said(TEXT[:40], finish_reason="content_filter"), "content_filter", "content filter"),
        (said(""), "empty", "the answer is empty"),
        (said("[" * 100_000), "invalid", "it is no JSON"),
    ],
)
async def test_why_there_is_no_value(answer, reason, words):
    error = await failure(answer)
    assert (error.reason, error.path) == (reason, None)
    assert words in error.message


async def test_a_refusal_is_told_and_not_quoted():
    refusal = {"role": "assistant", "content": None, "refusal": "I will not do that"}
    async with Emulator(api_keys=[KEY], answer=lambda _: refusal) as emulator:
        async with make_client(emulator) as client:
            with pytest.raises(StructuredOutputError) as caught:
                await client.chat.completions.create(**ASK, response_format=Invoice)
    assert caught.value.reason == "refusal"
    assert "will not" not in caught.value.message
    assert caught.value.completion.choices[0].message.refusal == "I will not do that"


async def test_a_complete_answer_is_one_whatever_its_finish_reason():
    assert (await ask(said(TEXT, finish_reason="length"))).parsed == PARSED


async def test_with_several_choices_those_that_fit_are_kept():
    body = {
        "choices": [
            {"index": i, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
            for i, text in enumerate(['{"width": 1}', '{"width": "x"}', '{"width": 3}'])
        ]
    }
    error = await failure(Answer.body(json.dumps(body).encode()), Size, n=3)
    assert error.message.startswith("choice 1: ")
    assert error.index == 1
    assert [c.message.parsed for c in error.completion.choices] == [Size(1), None, Size(3)]
    assert error.completion.parsed == Size(1)


async def test_nothing_is_asked_again_by_itself():
    server = FaultServer(said("no"))
    async with server, make_client(server, retry=None) as client:
        with pytest.raises(StructuredOutputError):
            await client.chat.completions.create(**ASK, response_format=Invoice)
    assert len(server.requests) == 1


class Model:
    """Says one thing after the other, and keeps what it was asked."""

    def __init__(self, *says):
        self.says, self.asked = list(says), []

    def __call__(self, body):
        self.asked.append(body)
        return self.says.pop(0)


async def test_on_request_it_is_asked_again_with_what_was_wrong():
    model = Model('{"width": "x"}', "", '{"width": 3}')
    async with Emulator(api_keys=[KEY], answer=model, strict_history=True) as emulator:
        async with make_client(emulator) as client:
            create = client.chat.completions.create
            whole = await create(**ASK, response_format=Size, max_reasks=2, temperature=0.5)
    assert whole.parsed == Size(3)
    assert [len(body["messages"]) for body in model.asked] == [1, 3, 4]
    said, told = model.asked[1]["messages"][1:]
    assert said["content"] == '{"width": "x"}'
    assert "Expected `int`, got `str` at $.width" in told["content"]
    assert model.asked[2]["messages"][3]["content"].startswith("The answer is empty.")
    assert all(body["temperature"] == 0.5 for body in model.asked)
    assert all("max_reasks" not in body for body in model.asked)
    assert len({json.dumps(body["response_format"]) for body in model.asked}) == 1


async def test_it_is_asked_so_often_and_no_more():
    model = Model(*["no"] * 9)
    async with Emulator(api_keys=[KEY], answer=model) as emulator, make_client(emulator) as client:
        create = client.chat.completions.create
        with pytest.raises(StructuredOutputError):
            await create(**ASK, response_format=Size, max_reasks=2)
        assert len(model.asked) == 3
        model.says[0] = {"role": "assistant", "content": None, "refusal": "no"}
        with pytest.raises(StructuredOutputError):  # a refusal is an answer
            await create(**ASK, response_format=Size, max_reasks=2)
        assert len(model.asked) == 4
        model.says[:2] = ["no", '{"width": 1}']
        requests = [{**ASK, "max_reasks": 1}]
        found = [r async for r in client.chat.completions.map(requests, response_format=Size)]
        assert found[0].completion.parsed == Size(1)
        asked = len(model.asked)
        for wrong in ({"max_reasks": -1}, {"max_reasks": True}, {"max_reasks": 1, "stream": True},
                      {"max_reasks": 1, "response_format": None}):  # fmt: skip
            with pytest.raises(ConfigurationError, match="max_reasks"):
                await create(**{**ASK, "response_format": Size, **wrong})
        with pytest.raises(ConfigurationError, match="max_reasks"):
            client.chat.completions.stream(**ASK, response_format=Size, max_reasks=1)
        assert len(model.asked) == asked


class Checked(msgspec.Struct):
    first: int
    last: int

    def __post_init__(self):
        if self.last == 0:
            raise SystemExit("the process is not the type's to end")
        if self.last == 1:
            raise LookupError
        assert self.first <= self.last, "first after last"


@pytest.mark.parametrize(
    ("last", "words"),
    [(3, "AssertionError: first after last"), (1, "LookupError"), (0, "SystemExit: the process")],
)
async def test_whatever_a_types_own_check_raises_is_an_answer_that_does_not_fit(last, words):
    error = await failure(said(json.dumps({"first": 9, "last": last})), Checked)
    assert words in error.message
    assert (error.reason, error.path) == ("invalid", "$")
    assert error.completion.usage is not None or error.completion.choices


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
async def test_json_among_the_thoughts(field):
    def thinking(text, finish="stop"):
        message = {"role": "assistant", "content": None, field: text}
        return Answer.body(
            json.dumps(
                {"choices": [{"index": 0, "message": message, "finish_reason": finish}]}
            ).encode()
        )

    assert (await ask(thinking('{"width": 5}'), Size)).parsed == Size(5)
    assert (await ask(thinking('```json\n{"width": 5}\n```'), Size)).parsed == Size(5)
    for draft in ('Perhaps {"width": 5}?', "They want a width."):
        error = await failure(thinking(draft), Size)
        assert error.reason == "empty"
        assert "thoughts" in error.message
    assert (await failure(thinking('{"width": 5}', "length"), Size)).reason == "length"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<think>It is 5", "its thoughts do not end"), ('{"width": 1}\n{"width": 2}', "more than one value"),
        ('{"width": 1}\n{"wid', "a value in it is cut"), ("[5]", "Expected `object`, got `array`"),
        ('"{\\"width\\": 1', "it is no JSON"), ('{"width": 1.5}', "Expected `int`, got `float`"),
        ("See [1] and {this}.", "it is no JSON"),
    ],
)  # fmt: skip
async def test_what_is_not_clear_is_refused_and_named(text, words):
    error = await failure(said(text), Size)
    assert words in error.message


async def test_json_in_a_json_string_is_the_value():
    assert (await ask(said(json.dumps('{"width": 1}')), Size)).parsed == Size(1)
    assert (await ask(said(json.dumps("a")), str)).parsed == "a"


async def test_an_answer_that_calls_tools_has_no_value_yet():
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"width": "5"}'}}
    message = {"role": "assistant", "content": "Let me see.", "tool_calls": [call]}
    body = {"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}]}
    whole = await ask(Answer.body(json.dumps(body).encode()))
    assert whole.choices[0].message.parsed is None
    with pytest.raises(StructuredOutputError) as caught:
        whole.parsed  # noqa: B018 - the access is the test
    assert caught.value.reason == "tool_calls"
    function = whole.choices[0].message.tool_calls[0].function
    assert function.parse(dict[str, str]) == {"width": "5"}
    with pytest.raises(ToolArgumentsError, match=r"for f do not fit: Expected `int`") as wrong:
        function.parse(Size)
    assert (wrong.value.name, wrong.value.path) == ("f", "$.width")


# -- streams ---------------------------------------------------------------------------------------


def streamed(text, size=3, **more):
    return Answer.stream([text[i : i + size] for i in range(0, len(text), size)], **more)


async def test_a_stream_has_the_value_in_the_end():
    async with serving(FaultServer(streamed(TEXT))) as client:
        async with client.chat.completions.stream(**ASK, response_format=Invoice) as stream:
            assert isinstance(stream, ParsedChatStream)
            assert "".join([text async for text in stream.text()]) == TEXT
            whole = await stream.completion()
        assert whole.parsed == PARSED
        assert await stream.completion() is whole
        opened = await client.chat.completions.create(**ASK, response_format=Invoice, stream=True)
        async with opened:
            assert (await opened.completion()).parsed == PARSED
        plain = client.chat.completions.stream(**ASK, response_format={"type": "json_object"})
        assert isinstance(plain, ChatStream)
        assert not isinstance(plain, ParsedChatStream)


async def test_partial_yields_the_value_as_it_grows():
    answer = streamed(TEXT).split_every(40)
    async with serving(FaultServer(answer)) as client:
        async with client.chat.completions.stream(**ASK, response_format=Invoice) as stream:
            seen, kept = set(), []
            async for value in stream.partial():
                seen.add(id(value))
                kept.append(msgspec.to_builtins(value))
            whole = await stream.completion()
    assert len(seen) == 1
    assert len(kept) > 5
    assert {} not in kept[1:]
    assert kept[-1] == msgspec.to_builtins(whole.parsed) | {"items": GOOD["items"]}
    names = [
        value["items"][0]["name"]
        for value in kept
        if value.get("items") and "name" in value["items"][0]
    ]
    assert names[-1] == "a"


async def test_partial_yields_once_per_read_and_sees_what_others_have_read():
    async with serving(FaultServer(streamed(TEXT, 1))) as client:
        async with client.chat.completions.stream(**ASK, response_format=Invoice) as stream:
            await stream.completion()  # all has arrived
            values = [msgspec.to_builtins(value) async for value in stream.partial()]
    assert len(values) == 1
    assert values[0]["total"] == 3.5


async def test_partial_of_a_list_yields_the_list():
    text = '{"value": [{"width": 1}, {"width": 2}]}'
    async with serving(FaultServer(streamed(text).split_every(30))) as client:
        stream = client.chat.completions.stream(**ASK, response_format=list[Size])
        lengths = [len(value) async for value in stream.partial()]
    assert lengths == sorted(lengths)
    assert lengths[-1] == 2


async def test_partial_pauses_where_the_stream_does():
    answer = streamed('{"items": [], "note": "wait', 4)
    answer = answer.stall(answer.wire.index(b"data: [DONE]") - 150)
    server = FaultServer(answer)
    async with serving(server) as client:
        async with client.chat.completions.stream(**ASK, response_format=Invoice) as stream:
            async for value in stream.partial():
                if value.note:
                    break
            assert value.total is UNSET
            assert value.items == []


async def test_partial_ends_with_the_error_that_the_whole_has():
    async with serving(FaultServer(streamed(json.dumps({**GOOD, "total": "x"})))) as client:
        stream = client.chat.completions.stream(**ASK, response_format=Invoice)
        async with stream:
            with pytest.raises(StructuredOutputError) as caught:
                async for value in stream.partial():
                    last = value
        assert last.total == "x"
        assert caught.value.path == "$.total"
        assert len(caught.value.attempts) == 1
        with pytest.raises(StructuredOutputError):
            await stream.completion()


@pytest.mark.parametrize("text", ["I cannot do that.", '{"items": nonsense', "```json\nno"])
async def test_partial_of_what_is_no_json(text):
    async with serving(FaultServer(streamed(text))) as client:
        stream = client.chat.completions.stream(**ASK, response_format=Invoice)
        with pytest.raises(StructuredOutputError, match="it is no JSON"):
            async for value in stream.partial():
                assert value.total is UNSET


async def test_a_stream_that_breaks_keeps_what_had_arrived():
    answer = streamed(TEXT, 5)
    answer = answer.cut(answer.wire.index(b'"index":0', len(answer.wire) // 2))
    async with serving(FaultServer(answer)) as client:
        stream = client.chat.completions.stream(**ASK, response_format=Invoice)
        with pytest.raises(StreamTruncatedError) as caught:
            async with stream:
                async for value in stream.partial():
                    last = msgspec.to_builtins(value)
        assert last["items"][0] == GOOD["items"][0]
        assert TEXT.startswith(caught.value.partial.choices[0].message.content)


async def test_partial_may_be_left_and_the_stream_read_on():
    async with serving(FaultServer(streamed(TEXT).split_every(50))) as client:
        async with client.chat.completions.stream(**ASK, response_format=Invoice) as stream:
            async for _ in stream.partial():
                break
            assert (await stream.completion()).parsed == PARSED


# -- map -------------------------------------------------------------------------------------------


async def test_map_gives_values_and_errors_as_results():
    texts = ['{"width": 1}', '{"width": "x"}', '{"width": 3}']

    def answer(body):
        return texts[int(body["messages"][-1]["content"])]

    requests = [
        {"model": MODEL, "messages": [{"role": "user", "content": str(i)}]}
        for i in range(len(texts))
    ]
    async with Emulator(api_keys=[KEY], answer=answer) as emulator, make_client(emulator) as client:
        completions = client.chat.completions
        found = [r async for r in completions.map(requests, response_format=Size, ordered=True)]
        assert [r.completion and r.completion.parsed for r in found] == [Size(1), None, Size(3)]
        assert isinstance(found[1].error, StructuredOutputError)
        each = [{**request, "response_format": Size, "stream": True} for request in requests]
        found = [r async for r in completions.map(each, ordered=True)]
        assert [r.completion and r.completion.parsed for r in found] == [Size(1), None, Size(3)]
        both = [r async for r in completions.map(each[:1], response_format=Size)]
        assert isinstance(both[0].error, ConfigurationError)
        with pytest.raises(ConfigurationError, match="takes a type"):
            completions.map(requests, response_format={"type": "json_object"})


async def test_schemas_are_made_once_per_type():
    from konko_async._structured.response_format import format_of

    assert format_of(Invoice) is format_of(Invoice)
    assert format_of(list[Size]) is format_of(list[Size])


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [(int, "It is 5", None), (int, "5", 5), (list[int], "Sure, here it is: [1, 2]", [1, 2])],
)
async def test_partial_shows_at_the_end_what_could_not_be_seen_to_grow(kind, text, value):
    async with serving(FaultServer(streamed(text).split_every(30))) as client:
        stream = client.chat.completions.stream(**ASK, response_format=kind)
        if value is None:
            with pytest.raises(StructuredOutputError):
                [one async for one in stream.partial()]
        else:
            assert [one async for one in stream.partial()][-1] == value
