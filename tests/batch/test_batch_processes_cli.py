"""``konko-async batch --processes`` and ``--engine ray`` as a user meets them."""

import asyncio
import json
import os
import signal
import sys

import pytest
from batch_kit import ids, line, write

from konko_async.testing import Emulator

if sys.platform == "win32":
    pytest.skip("worker processes need a POSIX system", allow_module_level=True)
pytest.importorskip("click")


async def start(emulator, *arguments):
    environment = {**os.environ, "KONKO_API_KEY": "any", "KONKO_BASE_URL": emulator.base_url}
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "konko_async", "batch", *map(str, arguments),
        "--progress", "none",
        env=environment, stderr=asyncio.subprocess.PIPE, process_group=0,
    )  # fmt: skip


async def test_processes_and_their_report(tmp_path):
    source = write(tmp_path / "in.jsonl", [line(number) for number in range(30)])
    output, told = tmp_path / "out.jsonl", tmp_path / "report.json"
    async with Emulator() as emulator:
        command = await start(emulator, source, output, "--processes", 2, "--report", told)
        _, said = await command.communicate()
    assert command.returncode == 0, said
    assert ids(output) == [f"id-{number}" for number in range(30)]
    report = json.loads(told.read_text())
    assert (report["done"], report["failed"], report["repeated"]) == (30, 0, 0)
    assert report["latency"]["count"] == 30


async def test_ctrl_c_reaches_the_run_and_not_its_workers(tmp_path):
    source = write(tmp_path / "in.jsonl", [line(number) for number in range(60)])
    output = tmp_path / "out.jsonl"
    async with Emulator(latency=0.1) as emulator:
        options = (source, output, "--processes", 2, "--max-concurrency", 8)
        command = await start(emulator, *options)
        await emulator.wait_until(lambda: emulator.in_flight == 8, timeout=60)
        os.killpg(command.pid, signal.SIGINT)  # as a terminal does it: to the whole group
        _, said = await command.communicate()
        assert command.returncode == 130, said
        assert b"stopping" in said
        assert b"Traceback" not in said
        done = len(ids(output))
        posts = sum(record.body is not None for record in emulator.requests)
        assert done == posts  # what was in flight was let finish, and nothing was sent twice
        command = await start(emulator, *options)
        _, said = await command.communicate()
    assert command.returncode == 0, said
    assert ids(output) == [f"id-{number}" for number in range(60)]


async def test_a_missing_extra_is_named(tmp_path, monkeypatch):
    source = write(tmp_path / "in.jsonl", [line(0)])
    folder = tmp_path / "hidden"
    folder.mkdir()
    # As if it were not installed: no finder gets to see it.
    (folder / "sitecustomize.py").write_text("import sys\nsys.modules['ray'] = None\n")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    async with Emulator() as emulator:
        command = await start(emulator, source, tmp_path / "out", "--engine", "ray")
        _, said = await command.communicate()
    assert command.returncode == 2
    assert b"konko-async[ray]" in said
