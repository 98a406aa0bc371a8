"""What useChat posts becomes a call, or a refusal that names the place of the fault."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from konko_async.relay._errors import RefusalError
from konko_async.relay._formats.ui_request import parse_ui_chat
from konko_async.relay._policy import RelayOptions

OPTIONS = RelayOptions(models=["default", "m"])


def text(words):
    return {"type": "text", "text": words}


def user(*parts):
    return {"id": "u1", "role": "user", "parts": list(parts)}


def assistant(*parts):
    return {"id": "a1", "role": "assistant", "parts": list(parts)}


def tool(name="look", state="output-available", **more):
    return {"type": f"tool-{name}", "toolCallId": "c1", "state": state, "input": {"q": 1}, **more}


def body(*messages, **more):
    return {"id": "chat1", "messages": list(messages), "trigger": "submit-message", **more}


def messages_of(*messages):
    return parse_ui_chat(body(*messages), OPTIONS).messages


def test_a_conversation():
    call = parse_ui_chat(
        body(
            {"role": "system", "parts": [text("Be "), text("kind.")]},
            user(text("Hello")),
            assistant({"type": "step-start"}, {"type": "reasoning", "text": "hm"}, text("Hi.")),
            user(text("One"), text("Two"), {"type": "data-note", "data": 1}),
            model="m",
            temperature=0.5,
            messageId=None,
            headers={},
        ),
        OPTIONS,
    )
    assert call.messages == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi."},
        {"role": "user", "content": "One\nTwo"},
    ]
    assert (call.model, call.key, call.stream) == ("m", "chat1", True)
    assert call.params == {"temperature": 0.5}
    assert call.message_id is None


def called(name, number, arguments):
    function = {"name": name, "arguments": arguments}
    return {"id": f"c{number}", "type": "function", "function": function}


def test_tools_with_a_result_are_sent_back_step_by_step():
    call = parse_ui_chat(
        body(
            user(text("Look it up")),
            assistant(
                {"type": "step-start"},
                text("I look."),
                tool(output={"found": [1]}),
                {"type": "step-start"},
                tool(name="x-y", state="output-error", toolCallId="c2", errorText="broken", input=None, rawInput="{oops"),
                {**tool(state="output-denied", toolCallId="c3"), "type": "dynamic-tool", "toolName": "dyn",
                 "approval": {"id": "1", "approved": False, "reason": "no way"}},
                tool(state="input-available", toolCallId="c4"),
                tool(state="input-streaming", toolCallId="c5"),
                tool(state="output-available", toolCallId="c6", providerExecuted=True, output=1),
                tool(state="output-available", toolCallId="c7", preliminary=True, output=1),
                {"type": "source-url", "sourceId": "s", "url": "https://example.org"},
                {"type": "something-of-tomorrow"},
            ),
        ),
        OPTIONS,
    )  # fmt: skip
    assert call.messages[1:] == [
        {
            "role": "assistant",
            "content": "I look.",
            "tool_calls": [called("look", 1, '{"q":1}')],
        },
        {"role": "tool", "tool_call_id": "c1", "content": '{"found":[1]}'},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [called("x-y", 2, "{}"), called("dyn", 3, '{"q":1}')],
        },
        {"role": "tool", "tool_call_id": "c2", "content": "broken You wrote: {oops"},
        {"role": "tool", "tool_call_id": "c3", "content": "no way"},
    ]
    assert call.message_id == "a1"  # the answer goes on in the message that asked for the tools


def test_a_call_that_names_no_model_asks_the_default_one():
    assert parse_ui_chat(body(user(text("x"))), OPTIONS).model == "default"


def test_a_stopped_answer_without_text_is_left_out():
    assert messages_of(
        user(text("a")), assistant(tool(state="input-streaming")), user(text("b"))
    ) == [
        {"role": "user", "content": "a"},
        {"role": "user", "content": "b"},
    ]


def test_images_and_text_files():
    png = "data:image/png;base64,iVBORw0KGgo="
    note = "data:text/markdown;base64," + base64.b64encode("# Héllo".encode()).decode()
    content = messages_of(
        user(
            text("What is this?"),
            {"type": "file", "mediaType": "image/png", "url": png, "filename": "a.png"},
            {"type": "file", "mediaType": "image/jpeg", "url": "https://example.org/b.jpg"},
            {"type": "file", "mediaType": "text/markdown", "url": note, "filename": "n.md"},
        )
    )[0]["content"]
    assert content == [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": png}},
        {"type": "image_url", "image_url": {"url": "https://example.org/b.jpg"}},
        {"type": "text", "text": "n.md:\n# Héllo"},
    ]
    plain = {"type": "file", "mediaType": "text/plain", "url": "data:text/plain,a%20b"}
    assert messages_of(user(text("See:"), plain))[0]["content"] == "See:\na b"


def file(kind, url):
    return body(user({"type": "file", "mediaType": kind, "url": url}))


@pytest.mark.parametrize(
    ("given_body", "param", "said"),
    [
        (None, None, "JSON object"),
        ([], None, "JSON object"),
        ({}, None, "missing required field"),
        (body(), "messages", "at least one"),
        ({**body(user(text("x"))), "id": ""}, "id", "empty"),
        ({**body(user(text("x"))), "id": 7}, "id", "Expected `str`"),
        (body(user(text("x")), trigger="resume"), "trigger", "Invalid enum value"),
        (body({"role": "tool", "parts": []}), "messages[0].role", "Invalid enum value"),
        (body({"role": "user", "content": "x"}), "messages[0]", "`parts`"),
        (body({"role": "user", "parts": "x"}), "messages[0].parts", "Expected `array`"),
        (body(user("x")), "messages[0].parts[0]", "Expected `object`"),
        (body(user({"text": "x"})), "messages[0].parts[0].type", "needs a type"),
        (body(user({"type": "text"})), "messages[0].parts[0]", "`text`"),
        (body(user({"type": "text", "text": None})), "messages[0].parts[0].text", "Expected `str`"),
        (body(user()), "messages[0]", "needs a text"),
        (body(user(tool())), "messages[0].parts[0]", "cannot have a part"),
        (body(assistant({"type": "tool-", "toolCallId": "c", "state": "x"})), "messages[0].parts[0]", "a name"),
        (body(assistant({"type": "tool-x", "state": "x"})), "messages[0].parts[0]", "`toolCallId`"),
        (file("image/png", "http://example.org/a.png"), "messages[0].parts[0].url", "data: or https:"),
        (file("image/png", "javascript:alert(1)"), "messages[0].parts[0].url", "data: or https:"),
        (file("image/png", "data:text/html,x"), "messages[0].parts[0].url", "must say"),
        (file("application/pdf", "data:application/pdf;base64,AA=="), "messages[0].parts[0]", "images and texts"),
        (file("text/plain", "https://example.org/a.txt"), "messages[0].parts[0]", "images and texts"),
        (file("text/plain", "data:text/plain"), "messages[0].parts[0].url", "not a data: URL"),
        (file("text/plain", "data:text/plain;base64,!!"), "messages[0].parts[0].url", "not UTF-8"),
        (file("text/plain", "data:text/plain,%ff"), "messages[0].parts[0].url", "not UTF-8"),
    ],
)  # fmt: skip
def test_refusals_name_the_place(given_body, param, said):
    with pytest.raises(RefusalError) as caught:
        parse_ui_chat(given_body, OPTIONS)
    assert caught.value.status == 400
    assert caught.value.param == param
    assert said in caught.value.message
    assert param is None or caught.value.message.startswith(param)


@pytest.mark.parametrize(
    ("fields", "arguments", "told"),
    [
        ({"input": '{"q": 1'}, "{}", 'broken You wrote: {"q": 1'),
        ({"input": '{"q": 1}'}, '{"q": 1}', "broken"),
        ({"input": '"{\\"q\\":1}"'}, '{"q":1}', 'broken You wrote: "{\\"q\\":1}"'),
        ({"input": ["q"]}, "{}", 'broken You wrote: ["q"]'),
        ({"input": 5}, "{}", "broken You wrote: 5"),
        ({"input": None, "rawInput": {"q": 1}}, '{"q":1}', "broken"),
        ({"input": None, "rawInput": None}, "{}", "broken"),
        ({"input": "", "rawInput": None}, "{}", "broken"),
    ],
)
def test_arguments_that_no_server_takes_are_told_and_not_sent(fields, arguments, told):
    _, asks, result = messages_of(
        user(text("x")), assistant(tool(state="output-error", errorText="broken", **fields))
    )
    assert asks["tool_calls"] == [called("look", 1, arguments)]
    assert result["content"] == told


def test_nulls_stand_for_what_is_left_out():
    nothing = dict.fromkeys(
        [
            "toolName",
            "rawInput",
            "errorText",
            "providerExecuted",
            "preliminary",
            "approval",
            "title",
        ]
    )
    given = body(
        {"id": None, "role": "user", "parts": [{**text("Hi"), "state": None}], "metadata": None},
        assistant(
            tool(output=None, **nothing), tool(toolCallId="c2", state="output-error", **nothing)
        ),
        user({"type": "file", "mediaType": "text/plain", "url": "data:,x", "filename": None}),
        trigger=None,
        messageId=None,
        model=None,
    )
    messages = parse_ui_chat(given, OPTIONS).messages
    assert [m["role"] for m in messages] == ["user", "assistant", "tool", "tool", "user"]
    assert [m["content"] for m in messages[2:4]] == ["null", "The tool failed."]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
    ),
    max_leaves=8,
)
kinds = st.sampled_from(
    ["text", "file", "tool-x", "dynamic-tool", "step-start", "data-a", "reasoning"]
)
parts = st.fixed_dictionaries(
    {"type": kinds},
    optional={
        name: st.one_of(
            json_values, st.sampled_from(["output-available", "image/png", "data:,x", "text/plain"])
        )
        for name in (
            "text",
            "state",
            "toolCallId",
            "toolName",
            "input",
            "output",
            "url",
            "mediaType",
            "approval",
        )
    },
)
posted = st.fixed_dictionaries(
    {},
    optional={
        "id": st.text(max_size=4) | json_values,
        "messages": st.lists(
            st.fixed_dictionaries(
                {
                    "role": st.sampled_from(["user", "assistant", "system", "x"]),
                    "parts": st.lists(parts, max_size=3),
                }
            ),
            max_size=3,
        )
        | json_values,
        "trigger": json_values,
        "model": json_values,
    },
)


@given(posted | json_values)
def test_whatever_is_posted_is_a_call_or_a_refusal(value):
    value = json.loads(json.dumps(value))
    try:
        call = parse_ui_chat(value, OPTIONS)
    except RefusalError:
        return
    asked = set()
    for message in call.messages:
        assert message["role"] in {"system", "user", "assistant", "tool"}
        if message["role"] == "tool":
            assert isinstance(message["content"], str)
            assert message["tool_call_id"] in asked
        asked |= {c["id"] for c in message.get("tool_calls", ())}
