"""Streams that survive their server: one text, whatever is cut, in each server's way."""

import asyncio
import json
import random

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from konko_async import (
    AsyncKonko,
    BadRequestError,
    ConfigurationError,
    Endpoint,
    StreamError,
    StreamTruncatedError,
    Timeout,
)
from konko_async._streaming.continuation import DIALECTS, Splice, dialect_of, usage_of_all
from konko_async.testing import Answer, Emulator, FaultServer, faults
from konko_async.wire import Usage

MODEL = "codellama/codellama-13b-instruct"
QUESTION = [{"role": "user", "content": "Tell me."}]
TEXT = "Das  naïve Café —\n\n日本語, 🎉👨‍👩‍👧 and so on, and so on.  Ha ha ha ha!\n"
TOKENS = [TEXT[at : at + 3] for at in range(0, len(TEXT), 3)]
PATIENT = Timeout(connect=60, first_token=60, idle=60)
NAMES = [dialect.name for dialect in DIALECTS]


def model_of(dialect, seen=None):
    """What a server of a dialect makes of a request; it refuses what it does not understand."""

    def answer(body):
        if seen is not None:
            seen.append(body)
        last = body["messages"][-1]
        if last["role"] != "assistant":
            return TOKENS
        begun = last["content"]
        if dialect in {"vllm", "sglang"}:
            assert body["continue_final_message"] is True
            assert body["add_generation_prompt"] is False
            begun = begun.rstrip()  # as their templates do
        else:
            assert "continue_final_message" not in body
        assert last.get("prefix", False) is (dialect in {"mistral", "deepseek"})
        assert TEXT.startswith(begun)
        rest = TEXT[len(begun) :]
        if dialect == "mistral":
            rest = TEXT
        return [rest[at : at + 4] for at in range(0, len(rest), 4)]

    return answer


def client_of(*servers, **options):
    endpoints = [Endpoint(server.base_url, "sk-test-0123456789") for server in servers]
    return AsyncKonko(endpoints=endpoints, timeout=PATIENT, **options)


async def read(client, **options):
    async with client.chat.completions.stream(
        **{"model": MODEL, "messages": QUESTION, **options}
    ) as stream:
        pieces = [piece async for piece in stream.text()]
        return "".join(pieces), await stream.completion(), stream


@pytest.mark.parametrize("dialect", NAMES)
async def test_a_stream_that_is_cut_again_and_again_is_one_text(dialect):
    seen = []
    async with Emulator(answer=model_of(dialect, seen)) as one, client_of(one) as client:
        one.script(*(faults.Cut(after_chunks=after) for after in (3, 2, 5, 3, 4)))
        text, whole, stream = await read(
            client, resume=dialect, stream_options={"include_usage": True}
        )
        assert text == TEXT == whole.choices[0].message.content
        assert whole.choices[0].finish_reason == "stop"
        assert stream.resumed == 5
        assert len(seen) == 6
        assert len(stream.attempts) == 6
        assert stream.usage.completion_tokens > 0
        # Each call is its own, with its own key.
        assert len({entry.idempotency_key for entry in one.requests}) == 6


async def test_it_goes_on_at_another_endpoint_when_its_server_dies():
    async with Emulator(answer=model_of("llama.cpp"), tokens_per_second=100) as one:
        two = Emulator(answer=model_of("llama.cpp"))
        async with two, client_of(two, one, balance="priority") as client:
            two.tokens_per_second = 100
            async with client.chat.completions.stream(
                model=MODEL, messages=QUESTION, resume="llama.cpp"
            ) as stream:
                texts = stream.text()
                text = await anext(texts) + await anext(texts)
                await two.close()
                text += "".join([piece async for piece in texts])
            assert (text, stream.resumed) == (TEXT, 1)
            assert one.received == 1


async def test_without_resume_a_cut_is_raised_as_ever():
    async with Emulator(answer=model_of("vllm")) as one, client_of(one) as client:
        one.script(faults.Cut(after_chunks=4))
        with pytest.raises(StreamTruncatedError) as caught:
            await read(client)
        assert caught.value.partial.choices[0].message.content == "".join(TOKENS[:3])


async def test_an_answer_that_comes_in_one_read_is_not_lost():
    whole = events({"content": "Hel"}, {"content": "lo"}, finish="stop", together=True)
    async with FaultServer(whole) as one, client_of(one) as client:
        text, completion, stream = await read(client, resume="vllm")
        assert (text, stream.resumed) == ("Hello", 0)
        assert completion.choices[0].message.content == "Hello"
        assert completion.choices[0].finish_reason == "stop"


async def test_the_first_token_does_not_wait_for_the_second():
    answer = events({"content": "Hel"}, {"content": "lo"}, finish="stop")
    place = answer.wire.rindex(b"data:", 0, answer.wire.index(b'"lo"'))
    async with (
        FaultServer(answer.stall(place)) as one,
        client_of(one) as client,
        client.chat.completions.stream(model=MODEL, messages=QUESTION, resume="vllm") as stream,
    ):
        texts = stream.text()
        assert await anext(texts) == "Hel"
        await one.wait_for_stall()
        one.release()
        assert [text async for text in texts] == ["lo"]


async def test_what_came_is_read_in_batches_too():
    async with Emulator(answer=model_of("vllm")) as one, client_of(one) as client:
        one.script(faults.Cut(after_chunks=4))
        async with client.chat.completions.stream(
            model=MODEL, messages=QUESTION, resume="vllm"
        ) as stream:
            chunks = []
            while (batch := await stream.read()) is not None:
                assert batch.shape is None  # each is read by itself
                chunks += batch.chunks()
            assert stream.resumed == 1
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == TEXT


async def test_a_continuation_does_not_repeat_how_the_model_came_to_it():
    begun = events({"reasoning": "Hm."}, {"content": "Let"})
    rest = events({"reasoning": "Go on."}, {"content": " me."}, finish="stop")
    async with FaultServer(begun, rest) as one, client_of(one) as client:
        text, whole, stream = await read(client, resume="vllm")
        assert (text, stream.resumed) == ("Let me.", 1)
        assert whole.choices[0].message.reasoning == "Hm."


async def test_closed_by_another_task_while_it_is_resumed():
    begun = events({"content": "Let"})
    rest = events({"content": " me."}, finish="stop")
    place = rest.wire.index(b"data:")
    server = FaultServer(begun, rest.stall(place))
    async with server, client_of(server, retry=None) as client:
        async with client.chat.completions.stream(
            model=MODEL, messages=QUESTION, resume="vllm"
        ) as stream:
            texts = stream.text()
            assert await anext(texts) == "Let"
            reading = asyncio.ensure_future(anext(texts, None))
            await server.wait_for_stall()
            await stream.close()
            server.release()
            assert await reading is None
            assert (stream.closed, stream.resumed) == (True, 1)
            with pytest.raises(StreamError, match="closed before its end"):
                await stream.completion()
        await server.wait_until_closed()


async def test_what_was_held_back_is_no_part_of_the_answer():
    class Point(msgspec.Struct):
        x: int

    begun = events({"content": '{"x"'})
    async with (
        FaultServer(begun, Answer.error(400, "no more")) as one,
        client_of(one, retry=None) as client,
        client.chat.completions.stream(
            model=MODEL, messages=QUESTION, resume="vllm", response_format=Point
        ) as stream,
    ):
        with pytest.raises(BadRequestError, match="no more") as caught:
            await stream.completion()
        assert caught.value.partial is None
        assert "was to be resumed after StreamTruncatedError" in caught.value.__notes__[-1]


async def test_a_server_that_always_cuts_is_given_up_with_all_that_came():
    async with Emulator(answer=model_of("llama.cpp")) as one, client_of(one) as client:
        one.script(faults.Cut(after_chunks=5))
        one.script(*[faults.Cut(after_chunks=0)] * 30)
        with pytest.raises(Exception) as caught:
            await read(client, resume="llama.cpp")
        assert caught.value.partial.choices[0].message.content == "".join(TOKENS[:4])


async def test_an_answer_that_ended_by_length_is_continued():
    async with Emulator(answer=model_of("vllm")) as one, client_of(one) as client:
        text, whole, stream = await read(
            client, resume="vllm", max_tokens=3, continue_on_length=3,
            stream_options={"include_usage": True},
        )  # fmt: skip
        assert TEXT.startswith(text)
        assert (stream.resumed, whole.choices[0].finish_reason) == (3, "length")
        assert stream.usage.completion_tokens == 4 * 3
        text, whole, stream = await read(client, resume="vllm", max_tokens=20, continue_on_length=9)
        assert (text, whole.choices[0].finish_reason) == (TEXT, "stop")
        assert whole.choices[0].message.content == TEXT


async def test_json_is_asked_for_again_as_a_whole():
    class Point(msgspec.Struct):
        x: int
        y: int

    async with Emulator() as one, client_of(one) as client:
        one.answer = lambda _: list('{"x": 1, "y": 22}')
        one.script(faults.Cut(after_chunks=4), faults.Cut(after_chunks=9))
        async with client.chat.completions.stream(
            model=MODEL, messages=QUESTION, resume="llama.cpp", response_format=Point
        ) as stream:
            whole = await stream.completion()
        assert whole.parsed == Point(1, 22)
        assert stream.resumed == 2
        assert all(entry.body["messages"] == QUESTION for entry in one.requests)


async def test_tool_calls_are_asked_for_again_as_a_whole():
    tools = [{"type": "function", "function": {"name": "f", "parameters": {
        "type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}}}]  # fmt: skip
    async with Emulator() as one, client_of(one) as client:
        one.script(faults.Cut(after_chunks=2))
        async with client.chat.completions.stream(
            model=MODEL, messages=QUESTION, resume="llama.cpp", tools=tools, tool_choice="required"
        ) as stream:
            whole = await stream.completion()
        assert stream.resumed == 1
        (call,) = whole.choices[0].message.tool_calls
        assert set(json.loads(call.function.arguments)) == {"city"}


async def test_the_total_timeout_is_one_for_all_calls():
    async with (
        Emulator(answer=model_of("llama.cpp"), tokens_per_second=20) as one,
        client_of(one) as client,
    ):
        one.script(faults.Cut(after_chunks=3))
        with pytest.raises(Exception, match="total timeout"):
            await read(client, resume="llama.cpp", timeout=0.6)


async def test_a_stream_may_be_left_while_it_is_resumed():
    async with Emulator(answer=model_of("llama.cpp")) as one, client_of(one) as client:
        one.script(faults.Cut(after_chunks=4), faults.Delay(seconds=30))
        async with client.chat.completions.stream(
            model=MODEL, messages=QUESTION, resume="llama.cpp"
        ) as stream:
            texts = stream.text()
            for _ in range(3):
                await anext(texts)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await anext(texts)
        assert stream.closed


# -- the emulator as such a server -----------------------------------------------------------------


@pytest.mark.parametrize("dialect", NAMES)
async def test_the_emulator_goes_on_in_the_way_of_each_server(dialect):
    """Cut at places drawn at random; the emulator's own texts, and one that is hard to join."""
    chance = random.Random(dialect)
    async with Emulator(prefill=dialect, answer_tokens=40) as one, client_of(one) as client:
        for custom in (None, lambda _: TOKENS):
            one.answer = custom
            whole, _, stream = await read(client)
            assert stream.resumed == 0
            for _ in range(4):
                cuts = [chance.randrange(2, 9) for _ in range(chance.randrange(1, 4))]
                one.script(*(faults.Cut(after_chunks=cut) for cut in cuts))
                text, last, stream = await read(client, resume=dialect)
                assert text == whole == last.choices[0].message.content
                assert stream.resumed == len(cuts)
        text, _, stream = await read(client, resume=dialect, max_tokens=4, continue_on_length=99)
        assert (text, stream.resumed > 3) == (whole, True)


@pytest.mark.parametrize("dialect", ["vllm", "sglang", "llama.cpp"])
async def test_the_emulators_model_list_says_how_it_goes_on(dialect):
    async with Emulator(prefill=dialect) as one, client_of(one) as client:
        whole, _, _ = await read(client)
        one.script(faults.Cut(after_chunks=5), path="/chat/completions")
        text, _, stream = await read(client, resume="prefill")
        assert (text, stream.resumed) == (whole, 1)


async def test_a_server_that_does_not_repeat_the_beginning_though_its_kind_does():
    """As proxies before Mistral's models may do."""
    async with Emulator(prefill="mistral") as one, client_of(one) as client:
        whole, _, _ = await read(client)

        def plain(body):
            last = body["messages"][-1]
            return whole[len(last["content"]) :] if last["role"] == "assistant" else whole

        one.prefill, one.answer = None, plain
        one.script(faults.Cut(after_chunks=7), faults.Cut(after_chunks=3))
        text, _, stream = await read(client, resume="mistral")
        assert (text, stream.resumed) == (whole, 2)


@pytest.mark.parametrize(
    ("server", "last", "said"),
    [
        ("vllm", {"role": "user", "content": "x"}, "needs a last message of the assistant"),
        ("mistral", {"role": "assistant", "content": "x"}, "prefix True"),
        ("llama.cpp", {"role": "assistant", "content": "x"}, "2 or more assistant messages"),
    ],
)
async def test_what_such_servers_refuse(server, last, said):
    before = [{"role": "assistant", "content": "y"}] if server == "llama.cpp" else []
    ask = {"model": MODEL, "messages": [*QUESTION, *before, last]}
    if server == "vllm":
        ask["extra_body"] = {"continue_final_message": True, "add_generation_prompt": False}
    async with Emulator(prefill=server) as one, client_of(one) as client:
        with pytest.raises(BadRequestError, match=said):
            await client.chat.completions.create(**ask)
        if server == "vllm":
            ask["messages"] = [*QUESTION, {"role": "assistant", "content": "x"}]
            ask["extra_body"] = {"continue_final_message": True}
            with pytest.raises(BadRequestError, match="Cannot set both"):
                await client.chat.completions.create(**ask)
    with pytest.raises(ValueError, match="prefill must be one of vllm, "):
        Emulator(prefill="openai")


async def test_without_being_asked_a_last_message_is_one_of_the_conversation():
    ask = {"model": MODEL, "messages": [*QUESTION, {"role": "assistant", "content": "x"}]}
    answers = []
    for server in (None, "vllm", "sglang", "deepseek"):
        async with Emulator(prefill=server) as one, client_of(one) as client:
            found = await client.chat.completions.create(**ask)
            answers.append(found.choices[0].message.content)
    assert len(set(answers)) == 1


# -- which server it is ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("owner", "name"), [("vllm", "vllm"), ("sglang", "sglang"), ("llamacpp", "llama.cpp")]
)
async def test_the_model_list_says_how_a_server_continues(owner, name):
    listed = [{"id": MODEL, "owned_by": owner}]
    async with Emulator(models=listed, answer=model_of(name)) as one, client_of(one) as client:
        one.script(faults.Cut(after_chunks=3), path="/chat/completions")
        text, _, stream = await read(client, resume="prefill")
        assert (text, stream.resumed) == (TEXT, 1)
        await read(client, resume="prefill")
        assert [entry.path for entry in one.requests].count("/v1/models") == 1


async def test_where_none_is_known_it_is_said_before_anything_is_generated():
    async with Emulator() as one, client_of(one) as client:
        with pytest.raises(ConfigurationError, match=r"not known how .* continues"):
            await read(client, resume="prefill")
        assert {entry.path for entry in one.requests} == {"/v1/models"}


def test_known_services_are_told_by_their_hosts():
    assert dialect_of("https://api.mistral.ai/v1", None).name == "mistral"
    assert dialect_of("https://api.deepseek.com/beta", None).name == "deepseek"
    assert dialect_of("https://example.com/v1", None) is None
    with pytest.raises(ConfigurationError, match="beta"):
        dialect_of("https://api.deepseek.com/v1", None)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"resume": "magic"}, "resume must be"),
        ({"resume": 5}, "resume must be"),
        ({"resume": "vllm", "n": 2}, "several choices"),
        ({"continue_on_length": -1}, "continue_on_length must be"),
    ],
)
async def test_wrong_use_is_said(options, said):
    async with AsyncKonko(api_key="k") as client:
        with pytest.raises(ConfigurationError, match=said):
            client.chat.completions.stream(model=MODEL, messages=QUESTION, **options)
        with pytest.raises(ConfigurationError, match="for streams"):
            await client.chat.completions.create(model=MODEL, messages=QUESTION, resume="vllm")


# -- joining, at every place -----------------------------------------------------------------------


@given(st.text(alphabet="ab \n🎉é", max_size=30), st.data())
def test_texts_are_joined_without_gap_or_repetition(text, data):
    dialect = data.draw(st.sampled_from(DIALECTS))
    cut = data.draw(st.integers(0, len(text)))
    splice = Splice(text[:cut], dialect)
    begun = splice.sent.rstrip() if dialect.strips else splice.sent
    rest = text if dialect.echoes and splice.sent else text[len(begun) :]
    sizes = data.draw(st.lists(st.integers(1, 5), max_size=40))
    joined, at = text[:cut], 0
    for size in (*sizes, len(text) + 1):
        joined += splice.feed(rest[at : at + size])
        at += size
    assert joined + splice.flush() == text


def test_half_of_a_character_is_completed():
    high, low = "🎉".encode("utf-16-be", "surrogatepass")[:2], "🎉".encode("utf-16-be")[2:]
    half = high.decode("utf-16-be", "surrogatepass")
    splice = Splice(f"go {half}", DIALECTS[2])
    assert splice.sent == "go "
    assert splice.feed("🎉!") == low.decode("utf-16-be", "surrogatepass") + "!"
    other = Splice(f"go {half}", DIALECTS[2])
    assert other.feed("😀!") == "😀!"  # it goes on with another character


def test_usage_of_all_calls_is_added_up():
    assert usage_of_all([]) is None
    found = usage_of_all([Usage(1, 2, 3), Usage(10, 20, 30)])
    assert (found.prompt_tokens, found.completion_tokens, found.total_tokens) == (11, 22, 33)


def events(*deltas, finish=None, together=False):
    """A stream of these deltas, in one write or several; without a finish it is cut."""
    chunks = [{"index": 0, "delta": delta, "finish_reason": None} for delta in deltas]
    if finish is not None:
        chunks.append({"index": 0, "delta": {}, "finish_reason": finish})
    lines = [
        f"data: {json.dumps({'id': 'c', 'choices': [chunk]})}\n\n".encode() for chunk in chunks
    ]
    end = [b"data: [DONE]\n\n"] if finish is not None else []
    pieces = [*lines, *end]
    return Answer.body(
        [b"".join(pieces)] if together else pieces,
        content_type="text/event-stream", framing="chunked",
    )  # fmt: skip


def tool_call(arguments):
    function = {"name": "look", "arguments": arguments}
    return {"tool_calls": [{"index": 0, "id": "t", "type": "function", "function": function}]}


BEGUN = events({"content": "Let me look."}, tool_call('{"a'))


@pytest.mark.parametrize(
    ("again", "arguments"),
    [
        (
            events({"content": "Let me look."}, tool_call('{"a": 1}'), finish="tool_calls"),
            '{"a": 1}',
        ),
        # It said it in other words; what it wants called counts.
        (events({"content": "I look."}, tool_call('{"a": 2}'), finish="tool_calls"), '{"a": 2}'),
        (events({"content": "No need to look.", "reasoning": "?"}, finish="stop"), None),
        (events({"content": "Let"}, finish="stop"), None),
        (events({"content": "Let"}, tool_call('{"a": 3}'), finish="tool_calls"), '{"a": 3}'),
    ],
)
async def test_an_answer_with_a_tool_call_is_asked_for_again(again, arguments):
    async with FaultServer(BEGUN, again) as one, client_of(one, retry=None) as client:
        async with client.chat.completions.stream(
            model=MODEL, messages=QUESTION, resume="llama.cpp"
        ) as stream:
            if arguments is None:
                for _ in range(2):  # the error stays
                    with pytest.raises(StreamTruncatedError, match="gave another answer"):
                        await stream.completion()
                return
            message = (await stream.completion()).choices[0].message
        assert message.content == "Let me look."
        assert [call.function.arguments for call in message.tool_calls] == [arguments]


USAGE = {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}}
STOP = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}


@pytest.mark.parametrize("ends", [[STOP, USAGE], [USAGE, STOP], [USAGE], []])
async def test_text_that_looked_like_a_repetition_is_not_lost(ends):
    """A server whose kind repeats what it was given, and that does not: "ha ha " goes on "ha "."""
    said = [{"choices": [{"index": 0, "delta": {"content": "ha "}}]}, *ends]
    again = Answer.events([*map(json.dumps, said), "[DONE]"])
    begun = events({"content": "ha "}, {"content": "ha "})
    async with FaultServer(begun, again) as one, client_of(one) as client:
        text, whole, stream = await read(client, resume="mistral")
        assert text == whole.choices[0].message.content == "ha ha ha "
        assert stream.resumed == 1
