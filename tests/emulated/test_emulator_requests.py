"""No request, however odd, makes the emulator fail: it answers, or says what is wrong."""

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from konko_async.testing import Emulator
from konko_async.testing._emulator.errors import ApiError
from konko_async.testing._emulator.service import Service

CHAT = "codellama/codellama-13b-instruct"
GOOD = {
    "/chat/completions": {"model": CHAT, "messages": [{"role": "user", "content": "Hi"}]},
    "/completions": {"model": CHAT, "prompt": "Hi"},
    "/embeddings": {"model": CHAT, "input": "Hi"},
}
FIELDS = [
    *("model", "messages", "prompt", "input", "n", "stop", "max_tokens", "seed", "stream"),
    *("stream_options", "tools", "tool_choice", "parallel_tool_calls", "response_format"),
    *("logprobs", "top_logprobs", "echo", "dimensions", "encoding_format", "temperature"),
]
NAMES = st.sampled_from(
    [
        *(
            "role",
            "content",
            "type",
            "function",
            "name",
            "parameters",
            "text",
            "tool_calls",
            "user",
        ),
        *("properties", "required", "items", "enum", "anyOf", "allOf", "$ref", "minimum", "format"),
        *(
            "json_schema",
            "schema",
            "include_usage",
            "arguments",
            "minItems",
            "tool_call_id",
            "tool",
        ),
    ]
)
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
)
JSON = st.recursive(
    SCALARS | NAMES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=8,
)


def answer(path, body):
    """What the service makes of a request; it never has to wait, so no loop is needed."""
    emulator = Emulator(answer_tokens=5)
    call = emulator.begin("POST", path, {"authorization": "Bearer k"})
    call.body = body
    try:
        Service(emulator)._answer(call, None).send(None)
    except StopIteration as done:
        done.value.make()
        return done.value.status
    except ApiError as error:
        return error.status
    raise AssertionError("it waits for something")


@settings(suppress_health_check=[HealthCheck.too_slow])  # a busy machine is no fault of the data
@given(st.sampled_from(sorted(GOOD)), st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=4))
@example("/chat/completions", {"seed": 10**30, "max_tokens": 10**30})
@example("/chat/completions", {"tools": [{"function": {"name": "f", "parameters": 5}}]})
@example("/chat/completions", {"tools": [{"function": {"name": "f"}}], "tool_choice": 5})
@example("/embeddings", {"dimensions": 10**12})
@example("/completions", {"logprobs": "many"})
@example("/completions", {"logprobs": -5})
def test_odd_requests(path, change):
    assert answer(path, {**GOOD[path], **change}) in (200, 400, 404)


@given(JSON)
def test_odd_schemas(schema):
    tools = [{"function": {"name": "f", "parameters": schema}}]
    assert answer("/chat/completions", {**GOOD["/chat/completions"], "tools": tools}) in (200, 400)
    wanted = {"type": "json_schema", "json_schema": {"schema": schema}}
    body = {**GOOD["/chat/completions"], "response_format": wanted}
    assert answer("/chat/completions", body) in (200, 400)
