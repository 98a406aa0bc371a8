"""Batches whose calls are made by worker processes: one limit, one output, and deaths."""

import asyncio
import json
import os
import signal
import sys
import traceback
from pathlib import Path

import pytest
from batch_kit import asked, content, ids, line, read, run, write

from konko_async import AsyncKonko, ConfigurationError, RateLimit, RetryPolicy
from konko_async.batch import BatchError, Processes, RowLatencies, Stop, WorkerLostError
from konko_async.testing import Emulator, faults

if sys.platform == "win32":
    pytest.skip("worker processes need a POSIX system", allow_module_level=True)


class Seen(Processes):
    """Remembers the processes."""

    def __init__(self, count):
        super().__init__(count)
        self.links = []
        self._started = asyncio.Event()

    async def start(self, heard, lost):
        link = await super().start(heard, lost)
        self.links.append(link)
        self._started.set()
        return link

    async def wait_for(self, number):
        """Wait until so many have been started in all."""
        async with asyncio.timeout(60):
            while len(self.links) < number:
                self._started.clear()
                await self._started.wait()

    def kill(self, number=0):
        os.kill(self.links[number].pid, signal.SIGKILL)


def gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


async def test_the_same_output_as_from_one_process(client, emulator, tmp_path):
    source = write(
        tmp_path / "in.jsonl",
        [
            *(line(number) for number in range(40)),
            line(40, body={"model": "no/such", "messages": [{"role": "user", "content": "x"}]}),
            line(41, body={**line(41)["body"], "stream": True}),
            line(42, url="/v1/embeddings", body={"model": "thenlper/gte-base", "input": "a"}),
            line(43, url="/chat/completions"),
        ],
    )
    seen, records = Seen(2), []
    watched = client.with_options(observers=[records.append])
    there = await run(watched, source, tmp_path / "there.jsonl", workers=seen)
    here = await run(client, source, tmp_path / "here.jsonl")

    def told(report):
        return (
            report.rows, report.done, report.failed, report.prompt_tokens,
            report.completion_tokens, report.errors, report.latency.total, report.repeated,
        )  # fmt: skip

    assert told(there) == told(here)
    assert there.failed == 1
    assert len({link.pid for link in seen.links}) == 2
    for name in ("there.jsonl", "here.jsonl"):
        latencies = RowLatencies(tmp_path / name)
        latencies.advance()
        assert latencies.known == 43, "all rows but the failed one"
    assert sum(type(record).__name__ == "CallRecord" for record in records) == 44

    def lines(path):
        found = {}
        for row in read(path):
            row["response"]["request_id"] = ""
            for name in ("id", "created", "_request_id"):
                row["response"]["body"].pop(name, None)
            found[row["custom_id"]] = row
        return found

    assert lines(tmp_path / "there.jsonl") == lines(tmp_path / "here.jsonl")
    assert all(gone(link.pid) for link in seen.links)
    # The files are the same: a run without processes goes on where that one ended.
    again = await run(client, source, tmp_path / "there.jsonl", retry_failed=True)
    assert (again.resumed, again.finished) == (43, 1)


async def test_one_limit_between_all(tmp_path):
    source = write(tmp_path / "in.jsonl", [line(number) for number in range(60)])
    async with (
        Emulator(requests_per_minute=30, limit_window=1.0) as emulator,
        AsyncKonko(
            base_url=emulator.base_url,
            api_key="any",
            retry=None,
            rate_limit=RateLimit(requests_per_minute=30, window=1.0),
        ) as client,
    ):
        report = await run(client, source, tmp_path / "out.jsonl", workers=Processes(2))
        used = client.limits.lanes[0]
    assert (report.done, report.failed) == (60, 0)
    # A limit each would let 30 through too many. What a worker that stands still sends late is
    # counted by the server in the next window: that is no fault of the limit.
    assert report.rate_limited <= 15
    assert used.in_flight == 0


async def test_places_are_shared_and_given_back(tmp_path):
    source = write(tmp_path / "in.jsonl", [line(number) for number in range(30)])
    async with (
        Emulator(latency=0.01, capacity=3) as emulator,
        AsyncKonko(
            base_url=emulator.base_url, api_key="any", retry=None,
            rate_limit=RateLimit(max_concurrency=3),
        ) as client,
    ):  # fmt: skip
        report = await run(client, source, tmp_path / "out.jsonl", workers=Processes(2))
        assert (report.done, report.failed) == (30, 0)
        assert client.limits.lanes[0].in_flight == 0


async def test_a_429_in_one_process_pauses_all(tmp_path):
    source = write(tmp_path / "in.jsonl", [line(number) for number in range(8)])
    async with (
        Emulator() as emulator,
        AsyncKonko(
            base_url=emulator.base_url, api_key="any",
            rate_limit=RateLimit(requests_per_minute=6000, max_concurrency=1),
            retry=RetryPolicy(),
        ) as client,
    ):  # fmt: skip
        emulator.script(faults.Status(429, headers={"retry-after": "0.4"}))
        report = await run(client, source, tmp_path / "out.jsonl", workers=Processes(2))
        times = [record.started for record in emulator.requests if record.body]
    assert (report.done, report.failed, report.rate_limited) == (8, 0, 1)
    assert report.retried == 1
    assert times[1] - times[0] >= 0.4  # whoever came next


async def test_a_killed_worker_costs_what_was_in_flight(tmp_path):
    rows, source = 300, tmp_path / "in.jsonl"
    write(source, [line(number) for number in range(rows)])
    seen, answering = Seen(2), asyncio.Event()

    async def answer(_body):
        await answering.wait()
        return "fine"

    async with (
        Emulator(latency=0.02, answer=answer) as emulator,
        AsyncKonko(base_url=emulator.base_url, api_key="any", retry=None) as client,
    ):
        work = asyncio.create_task(
            run(client, source, tmp_path / "out.jsonl", workers=seen, max_concurrency=32)
        )
        for number, received in ((0, 60), (1, 180)):
            answering.set()
            await seen.wait_for(number + 2)
            await emulator.wait_until(lambda least=received: emulator.received > least, timeout=60)
            # All that may be in flight is, and stays so: also in the worker that is killed.
            answering.clear()
            await emulator.wait_until(lambda: emulator.in_flight == 32, timeout=60)
            seen.kill(number)
            await seen.wait_for(number + 3)
        answering.set()
        report = await work
        sent = asked(emulator)
        assert client.limits.lanes[0].in_flight == 0
    assert (report.done, report.failed) == (rows, 0)
    assert ids(tmp_path / "out.jsonl") == [f"id-{number}" for number in range(rows)]
    again = sum(count - 1 for count in sent.values())
    assert 0 < report.repeated <= 2 * 32  # what was in flight at each of the two
    assert again <= report.repeated  # one that was killed had not sent all that it was given
    assert len(seen.links) == 4
    assert all(gone(link.pid) for link in seen.links)


async def test_a_row_that_kills_its_workers_fails_alone(tmp_path, monkeypatch):
    """A middleware of the client ends the process at one row."""
    (tmp_path / "poison_here.py").write_text(
        "import os\n"
        "async def poison(request, call_next):\n"
        "    if 'row 3' == request.params['messages'][-1]['content']:\n"
        "        os._exit(7)\n"
        "    return await call_next(request)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    from poison_here import poison

    source = write(tmp_path / "in.jsonl", [line(number) for number in range(60)])
    async with (
        Emulator(latency=0.02) as emulator,
        AsyncKonko(base_url=emulator.base_url, api_key="any", middleware=[poison]) as client,
    ):
        report = await run(
            client, source, tmp_path / "out.jsonl", workers=Processes(1), max_concurrency=4
        )
    rows = {row["custom_id"]: row for row in read(tmp_path / "out.jsonl")}
    assert (report.done, report.failed, report.errors) == (60, 1, {"worker_lost": 1})
    assert rows["id-3"]["error"]["code"] == "worker_lost"
    assert report.repeated >= 5


async def test_workers_that_cannot_start_end_the_run(client, tmp_path, monkeypatch):
    source = write(tmp_path / "in.jsonl", [line(number) for number in range(3)])
    folder = tmp_path / "broken"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text("import os\nos._exit(9)\n")
    monkeypatch.syspath_prepend(folder)
    with pytest.raises(BatchError, match="exit code 9") as caught:
        await run(client, source, tmp_path / "out.jsonl", workers=Processes(1))
    assert caught.value.report.left == 3


class Dying(Seen):
    """The first so many workers die while they start, as an actor does whose node is lost."""

    def __init__(self, count, deaths):
        super().__init__(count)
        self.deaths = deaths

    async def start(self, heard, lost):
        link = await super().start(heard, lost)
        if self.deaths:
            self.deaths -= 1
            await link.close()
            raise WorkerLostError("it died while it started")
        return link


async def test_a_worker_that_dies_while_it_starts_is_replaced(client, tmp_path):
    source = write(tmp_path / "in.jsonl", [line(number) for number in range(10)])
    dying = Dying(1, deaths=2)
    report = await run(client, source, tmp_path / "out.jsonl", workers=dying)
    assert (report.done, report.failed, len(dying.links)) == (10, 0, 3)

    with pytest.raises(BatchError, match="as soon as they are started") as caught:
        await run(client, source, tmp_path / "second.jsonl", workers=Dying(1, deaths=3))
    # Ten rows met the same error: it holds the frames of one of them.
    frames = "".join(traceback.format_exception(caught.value))
    assert frames.count("in _pick") <= 1


async def test_what_cannot_be_sent_is_told_before_anything_is(emulator, tmp_path):
    async def local(request, call_next):
        return await call_next(request)

    source = write(tmp_path / "in.jsonl", [line(0)])
    async with AsyncKonko(base_url=emulator.base_url, api_key="any", middleware=[local]) as client:
        with pytest.raises(ConfigurationError, match="cannot be sent there"):
            await run(client, source, tmp_path / "out.jsonl", workers=Processes(1))
    assert emulator.received == 0
    with pytest.raises(ConfigurationError, match="at least 1"):
        Processes(0)


async def test_a_wrong_key_ends_the_run_as_ever(tmp_path):
    source = write(tmp_path / "in.jsonl", [line(number) for number in range(6)])
    async with (
        Emulator(api_keys=["right"]) as emulator,
        AsyncKonko(base_url=emulator.base_url, api_key="wrong") as client,
    ):
        with pytest.raises(BatchError, match="all rows would fail") as caught:
            await run(client, source, tmp_path / "out.jsonl", workers=Processes(1))
    assert caught.value.report.left == 6


@pytest.mark.parametrize("times", [1, 2])
async def test_stopping(tmp_path, times):
    source = write(tmp_path / "in.jsonl", [line(number) for number in range(50)])
    stop = Stop()
    async with (
        Emulator(latency=0.05) as emulator,
        AsyncKonko(base_url=emulator.base_url, api_key="any") as client,
    ):
        options = {"workers": Processes(2), "stop": stop, "max_concurrency": 8}
        work = asyncio.create_task(run(client, source, tmp_path / "out.jsonl", **options))
        await emulator.wait_until(lambda: emulator.in_flight == 8, timeout=60)
        for _ in range(times):
            stop.request()
        report = await work
        assert report.stopped == ("stopped" if times == 1 else "cancelled")
        assert report.exit_code == 130
        assert report.left
        if times == 1:
            assert emulator.received == report.done
        await emulator.wait_until(lambda: emulator.in_flight == 0, timeout=60)
        rest = await run(client, source, tmp_path / "out.jsonl", workers=Processes(2))
    assert (rest.done, rest.left) == (50, 0)
    assert ids(tmp_path / "out.jsonl") == [f"id-{number}" for number in range(50)]


PARENT = """
import asyncio, sys
from konko_async import AsyncKonko
from konko_async.batch import Processes, run_batch

class Told(Processes):
    async def start(self, heard, lost):
        link = await super().start(heard, lost)
        print(link.pid, flush=True)
        return link

async def main():
    async with AsyncKonko(base_url=sys.argv[1], api_key="any") as client:
        await run_batch(client, sys.argv[2], sys.argv[3], workers=Told(2), prices={},
                        max_concurrency=16)

asyncio.run(main())
"""


async def test_workers_end_with_a_parent_that_is_killed(tmp_path):
    rows = 120
    source = write(tmp_path / "in.jsonl", [line(number) for number in range(rows)])
    output = tmp_path / "out.jsonl"
    async with (
        Emulator(latency=0.05) as emulator,
        AsyncKonko(base_url=emulator.base_url, api_key="any") as client,
    ):
        parent = await asyncio.create_subprocess_exec(
            sys.executable, "-c", PARENT, emulator.base_url, str(source), str(output),
            stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        pids = [int(await parent.stdout.readline()) for _ in range(2)]
        await emulator.wait_until(lambda: emulator.received > 40, timeout=60)
        parent.kill()
        await parent.wait()
        # Their connections are closed with them; no call comes after that.
        await emulator.wait_until(lambda: emulator.in_flight == 0, timeout=60)
        async with asyncio.timeout(60):
            while not all(gone(pid) or zombie(pid) for pid in pids):
                await asyncio.sleep(0.01)
        before = {row["custom_id"] for row in read_whole(output)}
        sent = emulator.received
        assert sent - len(before) <= 16
        report = await run(client, source, output, workers=Processes(1))
    assert (report.done, report.resumed, report.left) == (rows, len(before), 0)
    assert ids(output) == [f"id-{number}" for number in range(rows)]


def zombie(pid):
    """Whether a process has ended and waits for whoever adopted it."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def read_whole(path):
    data = path.read_bytes()
    return [json.loads(text) for text in data[: data.rfind(b"\n") + 1].splitlines()]


async def test_answers_come_back_whole(tmp_path):
    """Larger than what a pipe holds."""
    source = write(tmp_path / "in.jsonl", [line(number, text="x" * 30_000) for number in range(4)])
    async with (
        Emulator(answer=lambda _: ["y" * 100_000] * 8) as emulator,
        AsyncKonko(base_url=emulator.base_url, api_key="any") as client,
    ):
        report = await run(client, source, tmp_path / "out.jsonl", workers=Processes(2))
    assert report.failed == 0
    assert [len(content(row)) for row in read(tmp_path / "out.jsonl")] == [800_000] * 4
