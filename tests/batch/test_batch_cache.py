"""Batches with the answer cache: hits cost nothing, and are counted, over kills as well."""

from batch_kit import content, line, read, run, write

from konko_async import AsyncKonko
from konko_async.batch import Price, Processes

PRICES = {"*": Price(1.0, 1.0)}


def rows(count):
    found = [line(number) for number in range(count)]
    for row in found:
        row["body"]["temperature"] = 0
    return found


async def test_a_second_output_costs_nothing(emulator, tmp_path):
    source = write(tmp_path / "in.jsonl", rows(30))
    reports = []
    for name in ("one", "two"):
        async with AsyncKonko("k", emulator.base_url, cache=tmp_path / "cache") as client:
            reports.append(await run(client, source, tmp_path / name, prices=PRICES))
    first, second = reports
    assert len(emulator.requests) == 30
    assert (first.from_cache, first.cost > 0) == (0, True)
    assert (second.from_cache, second.cost, second.answered) == (30, 0.0, 30)
    assert (second.prompt_tokens, second.latency.total) == (0, 0)
    texts = [sorted(map(content, read(tmp_path / name))) for name in ("one", "two")]
    assert texts[0] == texts[1]
    assert all(entry["response"]["from_cache"] for entry in read(tmp_path / "two"))
    # What stands behind the last checkpoint is counted again from the lines.
    journal = tmp_path / "two.journal"
    kept = journal.read_bytes().splitlines(keepends=True)[:2]
    journal.write_bytes(b"".join(kept))
    async with AsyncKonko("k", emulator.base_url) as client:
        again = await run(client, source, tmp_path / "two", prices=PRICES)
    assert (again.from_cache, again.cost, again.resumed) == (30, 0.0, 30)


async def test_worker_processes_share_the_cache(emulator, tmp_path):
    source = write(tmp_path / "in.jsonl", rows(20))
    async with AsyncKonko("k", emulator.base_url, cache=tmp_path / "cache") as client:
        await run(client, source, tmp_path / "one")
        report = await run(client, source, tmp_path / "two", workers=Processes(2))
    assert report.from_cache == 20
    assert len(emulator.requests) == 20
