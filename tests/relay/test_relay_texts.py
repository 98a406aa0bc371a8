"""Text completions and embeddings through the relay: the same lists, caps and limits."""

import base64
import json
import struct

import pytest
from relay_kit import MODEL, events_of, relaying

from konko_async.testing import Answer, Emulator, FaultServer

COMPLETIONS, EMBEDDINGS = "/v1/completions", "/v1/embeddings"


async def post(relay, path, body, **headers):
    async with relay.session.post(path, json=body, headers=headers) as response:
        data = await response.read()
        return response.status, json.loads(data)


async def test_a_completion_whole_and_streamed():
    async with relaying(Emulator(), max_tokens=7) as relay:
        status, whole = await post(relay, COMPLETIONS, {"prompt": "Once"})
        assert status == 200
        assert whole["object"] == "text_completion"
        assert whole["choices"][0]["text"]
        body = {"prompt": "Once", "stream": True}
        async with relay.session.post(COMPLETIONS, json=body) as response:
            assert response.status == 200
            assert response.headers["Content-Type"].startswith("text/event-stream")
            events = events_of(await response.read())
        assert events[-1].data == "[DONE]"
        chunks = [json.loads(event.data) for event in events[:-1]]
        texts = [choice["text"] for chunk in chunks for choice in chunk["choices"]]
        assert "".join(texts).strip()
        await relay.service.until_idle()
        assert relay.service.running == 0


async def test_embeddings_as_numbers_and_as_base64():
    async with relaying(Emulator()) as relay:
        status, numbers = await post(relay, EMBEDDINGS, {"input": ["a", "b"]})
        assert status == 200
        assert [one["index"] for one in numbers["data"]] == [0, 1]
        _, packed = await post(
            relay, EMBEDDINGS, {"input": ["a", "b"], "encoding_format": "base64"}
        )
        for plain, coded in zip(numbers["data"], packed["data"], strict=True):
            raw = base64.b64decode(coded["embedding"])
            found = struct.unpack(f"<{len(raw) // 4}f", raw)
            assert found == pytest.approx(plain["embedding"], rel=1e-6)
        assert numbers["usage"]["prompt_tokens"] > 0


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        (COMPLETIONS, {}, 400),
        (COMPLETIONS, {"prompt": ""}, 400),
        (COMPLETIONS, {"prompt": {"a": 1}}, 400),
        (COMPLETIONS, {"prompt": ["a", "b"]}, 400),
        (COMPLETIONS, {"prompt": [[1], [2]]}, 400),
        (COMPLETIONS, {"prompt": "a", "n": 5}, 400),
        (COMPLETIONS, {"prompt": "a", "best_of": 5}, 400),
        (COMPLETIONS, {"prompt": "a", "logit_bias": {}}, 400),
        (COMPLETIONS, {"prompt": "a", "extra_headers": {}}, 400),
        (COMPLETIONS, {"prompt": "a", "max_tokens": "9"}, 400),
        (COMPLETIONS, {"prompt": "a", "max_completion_tokens": 9}, 400),
        (COMPLETIONS, {"prompt": "a", "stream": 1}, 400),
        (COMPLETIONS, {"prompt": "a", "model": "other"}, 404),
        (COMPLETIONS, {"prompt": "a", "model": 7}, 400),
        (COMPLETIONS, [], 400),
        (EMBEDDINGS, {}, 400),
        (EMBEDDINGS, {"input": []}, 400),
        (EMBEDDINGS, {"input": 7}, 400),
        (EMBEDDINGS, {"input": ["a"] * 2049}, 400),
        (EMBEDDINGS, {"input": "a", "user": "ann"}, 400),
        (EMBEDDINGS, {"input": "a", "encoding_format": "hex"}, 400),
        (EMBEDDINGS, {"input": "a", "model": "other"}, 404),
        (EMBEDDINGS, {"input": "a", "stream": True}, 400),
    ],
)
async def test_what_may_not_be_asked(path, body, status):
    async with relaying(emulator := Emulator(), max_tokens=50) as relay:
        found, answer = await post(relay, path, body)
        assert (found, "error" in answer) == (status, True)
        assert not emulator.requests
        assert relay.service.running == 0


async def test_the_cap_and_the_name_of_the_model():
    async with relaying(emulator := Emulator(), models={"fast": MODEL}, max_tokens=5) as relay:
        for body in ({"prompt": "a"}, {"prompt": "a", "max_tokens": 99}):
            _, answer = await post(relay, COMPLETIONS, body)
            assert answer["model"] == "fast"
            assert emulator.requests[-1].body["max_tokens"] == 5
            assert emulator.requests[-1].body["model"] == MODEL
        _, vectors = await post(relay, EMBEDDINGS, {"input": "a", "model": "fast"})
        assert vectors["model"] == "fast"


async def test_limits_doors_and_failures_are_those_of_the_chat():
    async def nobody(_):
        return None

    for path, body in ((COMPLETIONS, {"prompt": "a"}), (EMBEDDINGS, {"input": "a"})):
        async with relaying(FaultServer(default=Answer.error(500))) as relay:
            assert (await post(relay, path, body))[0] == 502
            assert (await post(relay, path, body, Origin="https://evil.example"))[0] == 403
            assert (await post(relay, path, body, Host="evil.example"))[0] == 421
            async with relay.session.get(path) as response:
                assert response.status == 405
            relay.service.draining = True
            assert (await post(relay, path, body))[0] == 503
        async with relaying(FaultServer(), service={"auth": nobody}) as relay:
            assert (await post(relay, path, body))[0] == 401
