"""One chat has one answer: a new question ends the old call, DELETE ends all of a chat."""

import asyncio
import contextlib
import itertools
import json

import pytest
from relay_kit import KEY, MODEL, relaying

from konko_async import AsyncKonko
from konko_async.relay import (
    ChatCall,
    Dialect,
    MemoryStore,
    RelayOptions,
    RelayRequest,
    RelayService,
)
from konko_async.relay._formats.ui_message import UI_MESSAGE
from konko_async.relay._policy import chat_key
from konko_async.testing import Answer, Emulator, FaultServer

UI = "/api/chat"
SLOW = {"answer_tokens": 1000, "tokens_per_second": 2}


def ui(chat="c", text="Hello."):
    asked = {"id": "m", "role": "user", "parts": [{"type": "text", "text": text}]}
    return {"id": chat, "messages": [asked], "trigger": "submit-message"}


async def first_event(response):
    assert response.status == 200
    return await response.content.readuntil(b"\n\n")


@pytest.mark.parametrize("resumable", ["0", "1"])
async def test_a_new_question_ends_the_old_call(resumable):
    emulator = Emulator(**SLOW)
    async with relaying(emulator, max_calls_per_identity=2) as relay:
        answers = []
        for number in range(6):
            answer = await relay.ask(ui(), {"X-Resumable": resumable}, UI)
            await first_event(answer)
            answers.append(answer)
            assert emulator.in_flight == 1, number
            assert relay.service.running == 1
        for answer in answers[:-1]:  # whoever still reads an old answer is told that it has ended
            assert b'"abort"' in await answer.read()
        async with relay.session.delete(f"{UI}/c/stream") as response:
            assert response.status == 204
        assert b'"abort"' in await answers[-1].read()
        await relay.service.until_idle()
        await emulator.wait_until(lambda: emulator.in_flight == 0)


async def test_other_chats_and_other_people_go_on():
    async def who(request):
        return request.headers["authorization"]

    emulator = Emulator(**SLOW)
    async with relaying(emulator, service={"auth": who}) as relay:
        answers = []
        for chat, name in (("a", "ann"), ("b", "ann"), ("a", "bob")):
            answers.append(await relay.ask(ui(chat), {"Authorization": name}, UI))
            await first_event(answers[-1])
        assert emulator.in_flight == 3
        async with relay.session.delete(f"{UI}/a/stream", headers={"Authorization": "bob"}):
            pass
        await answers[-1].read()
        await emulator.wait_until(lambda: emulator.in_flight == 2)
        for answer in answers:
            answer.close()


async def test_many_questions_at_once_leave_one_call():
    emulator = Emulator(**SLOW)
    async with relaying(emulator) as relay:

        async def ask():
            async with relay.ask(ui(), None, UI) as response:
                return response.status, await response.read()

        asking = [asyncio.create_task(ask()) for _ in range(12)]
        _, left = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
        while len(left) > 1:
            _, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
        await emulator.wait_until(lambda: emulator.in_flight == 1)
        assert relay.service.running == 1
        async with relay.session.delete(f"{UI}/c/stream"):
            pass
        results = await asyncio.gather(*asking)
        assert {status for status, _ in results} <= {200, 409}
        await relay.service.until_idle()


def whole(body, options):
    """Ask for whole answers in a chat."""
    del options
    return ChatCall(
        model=MODEL, messages=[{"role": "user", "content": "x"}], key=body["id"], stream=False
    )


async def test_whole_answers_of_a_chat_are_ended_too():
    emulator = Emulator(**SLOW)
    dialects = {"/chats": Dialect(name="whole", parse=whole, format=UI_MESSAGE.format)}
    async with relaying(emulator, service={"dialects": dialects}) as relay:
        asking = asyncio.create_task(relay.session.post("/chats", json=ui()))
        await emulator.wait_until(lambda: emulator.in_flight == 1)
        again = asyncio.create_task(relay.session.post("/chats", json=ui()))
        async with await asking as response:
            assert response.status == 409
            assert (await response.json())["error"]["type"] == "stopped"
        await emulator.wait_until(lambda: emulator.received == 2)
        await relay.service.close()
        async with await again as response:
            assert response.status == 503


async def test_a_call_of_another_process_is_ended():
    store = MemoryStore()
    emulator = Emulator(**SLOW)
    async with relaying(emulator, service={"store": store}) as one:
        options = RelayOptions(models=[MODEL])
        async with AsyncKonko(KEY, emulator.base_url, retry=None) as client:
            other = RelayService(client, options, auth="open", host="127.0.0.1", store=store)
            async with one.ask(ui(), None, UI) as response:
                await first_event(response)
                reply = await other.handle(request_of(ui()))
                assert reply.status == 200
                assert b'"abort"' in await response.read()
            await emulator.wait_until(lambda: emulator.in_flight == 1)
            await other.handle(request_of(None, "DELETE", f"{UI}/c/stream"))
            await emulator.wait_until(lambda: emulator.in_flight == 0)
            await reply.close()
            await other.close()


def request_of(body, method="POST", path=UI):
    async def pieces():
        yield json.dumps(body).encode()

    return RelayRequest(
        method=method, path=path, headers={"host": "localhost", "content-type": "application/json"},
        body=pieces, gone=lambda: False, local="127.0.0.1",
    )  # fmt: skip


# -- what a caller can make grow --------------------------------------------------------------------


def test_ids_of_chats_are_kept_as_they_are_or_as_a_digest():
    for usual in ("a", "x" * 128, "7b0c-_.~:@=+", "3f2504e0-4f89-11d3-9a0c-0305e82c3301"):
        assert chat_key(usual) == usual
    odd = ["", "x" * 129, "a b", "a/b", "ü", "\0", "a\n", "\ud800", "x" * 10**6, "'\"<>"]
    kept = [chat_key(name) for name in odd]
    assert len(set(kept)) == len(odd)
    for name in kept:
        assert len(name) <= 128
        assert chat_key(name) == name


async def test_a_chat_with_a_long_id_costs_no_more_than_another():
    store = MemoryStore()
    server = FaultServer(default=Answer.stream(["Hi"]))
    async with relaying(server, service={"store": store}) as relay:
        sizes = []
        for chat in ("short", "x" * 900_000):
            before = store.size
            async with relay.ask(ui(chat), None, UI) as response:
                assert response.status == 200
                await response.read()
            sizes.append(store.size - before)
        assert max(sizes) < 4096
        too_long = {
            **ui(),
            "messages": [*ui()["messages"], {"id": "m" * 129, "role": "assistant", "parts": []}],
        }
        async with relay.ask(too_long, None, UI) as response:
            assert response.status == 400
        odd = "a/b c"
        async with relay.ask(ui(odd), None, UI) as response:
            await response.read()
        async with relay.session.get(f"{UI}/a%2Fb%20c/stream") as response:
            assert response.status in (204, 404)


async def test_calls_are_forgotten_with_their_ends():
    """After any mixture of ends nothing of a chat is left in the service."""
    server = FaultServer(default=Answer.stream(["Hi"]))
    async with relaying(server) as relay:
        calls = relay.service._calls
        for number, kind in enumerate(itertools.islice(itertools.cycle("rdfl"), 40)):
            headers = {"X-Resumable": "0" if kind == "d" else "1"}
            body = {**ui(f"chat{number}"), **({"temperature": 99} if kind == "f" else {})}
            with contextlib.suppress(OSError):
                async with relay.ask(body, headers, UI) as response:
                    if kind == "l":
                        response.close()
                    else:
                        await response.read()
        await relay.service.until_idle()
        await relay.service.close()
        assert not calls._chats._live
        assert not calls.live
        assert relay.service.running == 0
