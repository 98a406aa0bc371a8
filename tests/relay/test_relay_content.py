"""What a conversation carries beside its text: parts, files, tools, references, token limits."""

import itertools
import json

import pytest
from relay_kit import ASK, MODEL, relaying

from konko_async.errors import ConfigurationError
from konko_async.relay import ChatCall, RefusalError, RelayOptions
from konko_async.relay._policy import checked_call
from konko_async.testing import Answer, FaultServer

PIXEL = "data:image/png;base64,AAAA"
PUBLIC = [
    "https://images.example.com/a.png", "https://images.example.com:8443/a?b=c#d", "https://8.8.8.8/a.png",
    "HTTPS://Images.Example.COM/a", "https://xn--bcher-kva.example/a", "https://[2606:4700::1111]/a",
    "https://images.example.com./a", "https://images.example.com/@a/b",
]  # fmt: skip
NOT_PUBLIC = [
    # other schemes, and what parsers disagree about
    "http://images.example.com/a.png", "file:///etc/passwd", "ftp://a.example/x", "gopher://x", "//a.example/x",
    "javascript:alert(1)", "", "a.png", "https:/a.example", "https://", "https:///a", "https://a.example\\@10.0.0.1/",
    "https://user@a.example/", "https://a.example:x/", " https://a.example/", "https://a.example/\n", "https://a%2eb.example/",
    "https://a.example@10.0.0.1/", "https://a.example#@10.0.0.1", "https://a.example?@10.0.0.1/", "https://\u24b6.example/", "blob:https://a.example/x",
    # addresses of no public network, in every notation
    "https://127.0.0.1/", "https://127.1/", "https://2130706433/", "https://0x7f000001/", "https://0x7f.1/", "https://017700000001/",
    "https://10.1.2.3/", "https://172.16.0.1/", "https://192.168.0.1/", "https://169.254.169.254/latest/meta-data/", "https://100.64.0.1/",
    "https://0.0.0.0/", "https://0/", "https://[::]/", "https://[::1]/", "https://[::ffff:10.0.0.1]/", "https://[fe80::1]/", "https://[fd00::1]/",
    "https://[2002:0a00:0001::1]/", "https://[64:ff9b::a00:1]/", "https://[64:ff9b:1::a00:1]/", "https://[::10.0.0.1]/", "https://192.0.0.192/",
    "https://[2001:0:7f00:1::]/", "https://[ff02::1]/", "https://[::ffff:0:8.8.8.8]/", "https://224.0.0.1/", "https://1.2.3.4.5/", "https://a.0x10/",
    # names of one's own network
    "https://localhost/", "https://LOCALHOST/", "https://a.localhost/", "https://localhost./", "https://metadata.google.internal/", "https://redis/",
    "https://printer.local/", "https://router.lan/", "https://a.home.arpa/", "https://-a.example/", "https://a..example/",
]  # fmt: skip


def options(**more):
    return RelayOptions(**{"models": [MODEL], **more})


def parts(*content, **more):
    call = ChatCall(model=MODEL, messages=[{"role": "user", "content": list(content)}])
    return checked_call(call, options(**more)).messages[0]["content"]


def image(url, **more):
    return {"type": "image_url", "image_url": {"url": url, **more}}


@pytest.mark.parametrize("url", [PIXEL, *PUBLIC])
def test_files_of_public_hosts_pass(url):
    assert parts(image(url)) == [image(url)]


@pytest.mark.parametrize("url", NOT_PUBLIC)
def test_other_files_do_not(url):
    with pytest.raises(RefusalError) as caught:
        parts(image(url))
    assert caught.value.status == 400
    assert "169.254" not in caught.value.message


def test_hosts_by_list():
    ours = {"file_hosts": ["Files.example", "10.0.0.5"]}
    for url in (
        PIXEL,
        "https://files.example/a",
        "https://files.example:99/a",
        "https://10.0.0.5/",
    ):
        assert parts(image(url), **ours) == [image(url)]
    for url in ("https://a.files.example/", "https://files.example.evil/", "http://files.example/"):
        with pytest.raises(RefusalError):
            parts(image(url), **ours)
    with pytest.raises(RefusalError):
        parts(image("https://files%2eexample/"), file_hosts=["files%2eexample"])
    with pytest.raises(RefusalError):
        parts(image(PUBLIC[0]), file_hosts=[])
    for wrong in ("files.example", ["*"]):
        with pytest.raises(ConfigurationError):
            options(file_hosts=wrong)


def test_fields_of_parts_that_are_not_known_are_left_out():
    text = {
        "type": "text",
        "text": "x",
        "cache_control": {"type": "ephemeral"},
        "file": {"file_id": "f"},
    }
    shown = image(PIXEL, detail="low", headers={"x": "y"}) | {"extra": 1}
    assert parts(text, shown) == [{"type": "text", "text": "x"}, image(PIXEL, detail="low")]


KINDS = ["text", "image_url", "video_url", "audio_url", "input_audio", "file", "refusal", "own"]


@pytest.mark.parametrize(
    ("part", "kept"),
    [
        (
            {"type": "file", "file": {"filename": "a", "file_data": PIXEL, "file_id": "f"}},
            {"type": "file", "file": {"filename": "a", "file_data": PIXEL}},
        ),
        (
            {
                "type": "input_audio",
                "input_audio": {"data": "AA", "format": "wav", "url": "http://x"},
            },
            {"type": "input_audio", "input_audio": {"data": "AA", "format": "wav"}},
        ),
        ({"type": "own", "field": {"deep": [1]}}, {"type": "own", "field": {"deep": [1]}}),
    ],
)
def test_parts_that_an_application_allows(part, kept):
    assert parts(part, parts=KINDS) == [kept]


@pytest.mark.parametrize(
    "part",
    [
        {"type": "file", "file": {"file_data": "http://10.0.0.1/a"}},
        {"type": "video_url", "video_url": {"url": "https://10.0.0.1/a"}},
        {"type": "audio_url", "audio_url": {"url": ["https://10.0.0.1/a"]}},
        {"type": "image_url", "image_url": "http://10.0.0.1/a"},
        {"type": "image_url", "image_url": {"url": 7}},
        {"type": "image_url"},
        {"type": "text", "text": {"url": "http://10.0.0.1/a"}},
        {"type": "text"},
        {"type": "input_audio", "input_audio": {"data": "http://10.0.0.1/a", "format": "wav"}},
        {"type": "own", "deep": [{"image_url": "http://10.0.0.1/a"}]},
        {"type": "own", "deep": [{"imageUrl": "http://10.0.0.1/a"}]},
        {"type": "own", "file": {"URI": "file:///etc/passwd"}},
        {"type": "own", "a": {"url": {"url": "http://10.0.0.1/a"}}},
    ],
)
def test_parts_that_are_refused_though_their_type_is_allowed(part):
    with pytest.raises(RefusalError, match=r"^messages\[0\]\.content") as caught:
        parts(part, parts=KINDS)
    assert caught.value.param.startswith("messages[0].content")


@pytest.mark.parametrize("content", [{"type": "text", "text": "x"}, 7, True, 1.5])
def test_content_that_is_neither_text_nor_parts(content):
    call = ChatCall(model=MODEL, messages=[{"role": "user", "content": content}])
    with pytest.raises(RefusalError):
        checked_call(call, options())


def asked(**params):
    return checked_call(
        ChatCall(model=MODEL, messages=ASK["messages"], params=params), options()
    ).params


def function(name="f", **more):
    return {"type": "function", "function": {"name": name, **more}}


def test_functions_pass_with_their_known_fields():
    schema = {"type": "object", "properties": {"$ref": {"$ref": "#/$defs/A"}}, "$defs": {"A": {}}}
    sent = function(description="d", parameters=schema, strict=True, server_url="http://x") | {
        "x": 1
    }
    kept = function(description="d", parameters=schema, strict=True)
    assert asked(tools=[sent]) == {"tools": [kept]}
    for choice in (
        "auto",
        "none",
        "required",
        function(),
        {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [function()]}},
    ):
        assert asked(tools=[kept], tool_choice=choice)["tool_choice"] == choice


@pytest.mark.parametrize(
    "params",
    [
        {"tools": [{"type": "mcp", "server_url": "http://evil.example"}]},
        {"tools": [{"type": "web_search"}]}, {"tools": [{"type": "web_search_preview"}]}, {"tools": [{"type": "code_interpreter"}]},
        {"tools": [function(), {"type": "custom", "custom": {"name": "f"}}]},
        {"tools": [{"function": {"name": "f"}}]}, {"tools": [{"type": "function", "function": {}}]}, {"tools": [{"type": "function"}]},
        {"tools": ["f"]}, {"tools": function()}, {"tools": "f"}, {"tools": [{"type": ["function"]}]},
        {"tool_choice": {"type": "mcp", "server_label": "x"}}, {"tool_choice": {"name": "f"}},
        {"tool_choice": {"type": "allowed_tools", "allowed_tools": {"tools": [{"type": "mcp"}]}}},
        {"tool_choice": {"type": "allowed_tools", "tools": [function(), {"type": "mcp"}]}},
        {"tools": [function(parameters={"$ref": "http://10.0.0.1/schema"})]},
        {"tools": [function(parameters={"properties": {"a": [{"$ref": "file:///etc/passwd"}]}})]},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"$ref": "other.json"}}}},
        {"response_format": {"type": "json_schema", "json_schema": {"name": "a", "schema": {"$id": "FILE:///x"}}}},
    ],
)  # fmt: skip
def test_tools_and_schemas_that_reach_further_are_refused(params):
    with pytest.raises(RefusalError) as caught:
        asked(**params)
    assert caught.value.status == 400


@pytest.mark.parametrize("kind", ["mcp", "custom", "web_search_call", ["function"], 7])
def test_earlier_calls_are_of_functions(kind):
    def history(**call):
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
        return checked_call(ChatCall(model=MODEL, messages=[message]), options()).messages

    call = {"id": "c", "function": {"name": "f", "arguments": "{}"}}
    assert history(**call)[0]["tool_calls"] == [call]
    assert history(**call, type="function")[0]["tool_calls"] == [call | {"type": "function"}]
    with pytest.raises(RefusalError, match=r"messages\[0\].tool_calls"):
        history(**call, type=kind)


CAPS = ("max_tokens", "max_completion_tokens")
VALUES = [None, 1, 9, 10, 11, 2**70]


@pytest.mark.parametrize("fields", [CAPS, CAPS[:1], CAPS[1:], CAPS[::-1]])
def test_no_way_around_the_cap(fields):
    for first, second in itertools.product(VALUES, VALUES):
        params = {CAPS[0]: first, CAPS[1]: second, "seed": 1}
        call = ChatCall(model=MODEL, messages=ASK["messages"], params=params)
        found = checked_call(call, options(max_tokens=10, token_fields=fields)).params
        assert found.pop("seed") == 1
        wanted = [value for value in (first, second) if value is not None]
        # Whichever field a server reads, it finds the least that was asked for, and the cap.
        assert set(found.values()) == {min([10, *wanted])}
        assert fields[0] in found
        assert set(found) <= set(fields)


@pytest.mark.parametrize("field", CAPS)
@pytest.mark.parametrize("value", [0, -1, -(2**70), 1.0, True, "9"])
def test_no_value_of_the_cap_means_that_there_is_none(field, value):
    call = ChatCall(model=MODEL, messages=ASK["messages"], params={field: value})
    with pytest.raises(RefusalError, match=rf"^{field}: must be an integer above 0"):
        checked_call(call, options(max_tokens=10))


@pytest.mark.parametrize("wrong", ["max_tokens", [], ["n"], ["max_tokens", "best_of"]])
def test_fields_of_the_cap_are_checked(wrong):
    with pytest.raises(ConfigurationError):
        options(token_fields=wrong)


async def test_the_model_gets_what_was_checked_and_nothing_else():
    server = FaultServer(Answer.stream(["Hi"]))
    async with relaying(server, max_tokens=10) as relay:
        part = {"type": "text", "text": "x", "file": {"file_id": "f"}}
        message = {"role": "user", "content": [part]}
        async with relay.ask({"messages": [message], "max_completion_tokens": 99}) as response:
            assert response.status == 200
            await response.read()
        sent = json.loads(server.requests[0].body)
    assert sent["messages"] == [{"role": "user", "content": [{"type": "text", "text": "x"}]}]
    assert (sent["max_tokens"], sent["max_completion_tokens"]) == (10, 10)
