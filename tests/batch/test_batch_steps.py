"""Several prompts for each row, resumable per step."""

import asyncio
import json

import pytest
from batch_kit import MODEL, read, run, write

from konko_async import AsyncKonko, ConfigurationError
from konko_async.batch import BatchChangedError, BatchError, Price, Processes, Step, Stop
from konko_async.testing import Emulator, faults

STEPS = [("facts", "Facts of {text}"), ("check", "Check: {facts}"), ("sum", "{text}: {answer}")]


def answer(body):
    return f"<{body['messages'][-1]['content']}>"


@pytest.fixture
async def emulator():
    async with Emulator(answer=answer) as running:
        yield running


@pytest.fixture
async def client(emulator):
    async with AsyncKonko(base_url=emulator.base_url, api_key="any", retry=None) as made:
        yield made


def rows_of(folder, count=3):
    return write(folder / "in.jsonl", [{"id": n, "text": f"t{n}"} for n in range(count)])


def prompts(emulator):
    return [r.body["messages"][-1]["content"] for r in emulator.requests]


async def test_each_step_has_the_answers_before(client, emulator, tmp_path):
    source, output = rows_of(tmp_path), tmp_path / "out"
    prices = {MODEL: Price(1.0, 1.0)}
    report = await run(client, source, output, steps=STEPS, model=MODEL, prices=prices)
    assert (report.done, report.failed, len(emulator.requests)) == (3, 0, 9)
    [row] = [row for row in read(output) if row["custom_id"] == "1"]
    assert row["steps"] == {
        "facts": "<Facts of t1>",
        "check": "<Check: <Facts of t1>>",
        "sum": "<t1: <Check: <Facts of t1>>>",
    }
    assert row["response"]["body"]["choices"][0]["message"]["content"] == row["steps"]["sum"]
    # All three calls are paid for, and counted.
    assert row["response"]["before"]["calls"] == 2
    assert report.cost == report.prompt_tokens + report.completion_tokens
    assert not (tmp_path / "out.steps").exists()
    keys = [r.idempotency_key for r in emulator.requests]
    assert len(set(keys)) == 9


async def test_no_step_is_paid_twice(client, emulator, tmp_path):
    source, output, stop = rows_of(tmp_path), tmp_path / "out", Stop()
    emulator.always(faults.Status(400), when=lambda r: r.body and ": <Ch" in str(r.body))
    emulator.always(faults.Stall(), when=lambda r: r.body and "Check: <Facts of t2" in str(r.body))
    written = []

    def on_row(result):
        written.append(result)
        if len(written) == 2:  # the third one is held up in its second step
            stop.request()
            stop.request()

    report = await run(client, source, output, steps=STEPS, model=MODEL, stop=stop, on_row=on_row)
    assert (report.failed, report.left, report.stopped) == (2, 1, "cancelled")
    steps = tmp_path / "out.steps"
    assert "Facts of t2" in steps.read_text()
    with steps.open("ab") as file:  # a crash leaves a torn line
        file.write(b'0000 {"row"')
    emulator.clear()
    report = await run(client, source, output, steps=STEPS, model=MODEL, retry_failed=True)
    assert (report.done, report.failed) == (3, 0)
    found = prompts(emulator)
    # The rows that had failed kept their first two steps until they failed, as a row is done then.
    assert found.count("Facts of t2") == 1
    assert not steps.exists()


async def test_functions_stand_between(client, emulator, tmp_path):
    async def shorter(fields):
        await asyncio.sleep(0)
        return fields["answer"].strip("<>").upper()

    steps = [
        Step("a", "A {text}", system="S", params={"max_tokens": 99}),
        Step("b", function=shorter),
        Step("c", "C {b}", model="nousresearch/nous-hermes-llama2-13b"),
        Step("n", function=len),
    ]
    output = tmp_path / "out"
    await run(client, rows_of(tmp_path, 1), output, steps=steps, model=MODEL)
    assert read(output)[0]["steps"] == {"a": "<A t0>", "b": "A T0", "c": "<C A T0>", "n": 6}
    first, second = emulator.requests
    assert (first.body["max_tokens"], first.body["messages"][0]["content"]) == (99, "S")
    assert second.model == "nousresearch/nous-hermes-llama2-13b"
    assert "max_tokens" not in second.body

    def broken(_fields):
        raise ZeroDivisionError

    steps = [Step("a", "A {text}"), Step("b", function=broken), Step("c", "{missing}")]
    report = await run(client, tmp_path / "in.jsonl", tmp_path / "b", steps=steps, model=MODEL)
    assert (report.failed, read(tmp_path / "b")[0]["error"]["code"]) == (1, "step_failed")


async def test_the_last_answer_may_be_typed(client, emulator, tmp_path):
    emulator.answer = lambda body: "7" if "response_format" in body else "seven"
    steps = [("a", "A {text}"), ("b", "B {a}")]
    output = tmp_path / "out"
    await run(
        client, rows_of(tmp_path, 1), output, steps=steps, model=MODEL,
        response_format={"type": "integer"},
    )  # fmt: skip
    [row] = read(output)
    assert (row["value"], row["steps"]) == (7, {"a": "seven", "b": 7})
    assert ["response_format" in r.body for r in emulator.requests] == [False, True]


async def test_steps_are_a_part_of_what_is_asked(client, tmp_path):
    source, output = rows_of(tmp_path, 1), tmp_path / "out"
    await run(client, source, output, steps=STEPS, model=MODEL)
    with pytest.raises(BatchChangedError, match="steps"):
        await run(client, source, output, steps=STEPS[:2], model=MODEL)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"steps": [("a b", "{text}")]}, "name"),
        ({"steps": [("answer", "{text}")]}, "answer"),
        ({"steps": [("a", "{text}"), ("a", "{text}")]}, "two of"),
        ({"steps": [Step("a", function=len)]}, "first"),
        ({"steps": STEPS, "prompt": "{text}"}, "exclude"),
        ({"steps": STEPS, "workers": Processes(1)}, "this process"),
        ({"steps": STEPS, "server_side": True}, "this process"),
        ({"steps": STEPS, "endpoint": "/v1/embeddings"}, "chat"),
    ],
)
async def test_what_cannot_be(client, tmp_path, options, text):
    with pytest.raises(ConfigurationError, match=text):
        await run(client, rows_of(tmp_path, 1), tmp_path / "out", model=MODEL, **options)
    with pytest.raises(ConfigurationError, match="either"):
        Step("a")
    (tmp_path / "own.steps").write_text("somebody's\n")
    with pytest.raises(BatchError, match="holds no steps"):
        await run(client, rows_of(tmp_path, 1), tmp_path / "own", model=MODEL, steps=STEPS)
    assert json.dumps(STEPS)
