"""A cluster of two nodes on loopback, an actor killed in the middle; `make ray-storm` does more."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from lazy_module import needs

from konko_async.testing import Emulator

pytestmark = needs("ray")

STORM = Path(__file__).parents[1] / "soak" / "raystorm.py"


@pytest.mark.timeout(600)
def test_an_actor_that_is_killed_costs_what_was_in_flight():
    scenarios = ["batch-actor", "data-actor"]
    command = [sys.executable, str(STORM), "--rows", "200", "--kills", "1"]
    command += ["--only", ",".join(scenarios)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [told["scenario"] for told in lines] == scenarios
    for told in lines:
        assert (told["lost"], told["twice"], told["kills"], told["problems"]) == (0, 0, 1, [])


@pytest.mark.timeout(600)
async def test_the_command_line_on_a_cluster_of_its_own(tmp_path):
    """``--engine ray`` starts one if there is none, and writes what the other engine goes on with.

    Its actors spread their calls over several endpoints, each with its own key.
    """
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    body = {"model": "codellama/codellama-13b-instruct", "max_tokens": 8}
    with source.open("w") as file:
        for row in range(40):
            messages = [{"role": "user", "content": f"row {row}"}]
            line = {"custom_id": f"id-{row}", "method": "POST", "url": "/v1/chat/completions"}
            file.write(json.dumps({**line, "body": {**body, "messages": messages}}) + "\n")

    async def konko(*options):
        command = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "konko_async", "batch", str(source), str(output),
            "--progress", "none", *options,
            env={**environment, "KONKO_API_KEY": "any"},
            stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        _, said = await command.communicate()
        return command.returncode, said.decode()

    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    async with Emulator(api_keys=["sk-one"]) as one, Emulator(api_keys=["sk-two"]) as two:
        endpoints = tmp_path / "endpoints.toml"
        endpoints.write_text(
            "".join(
                f'[[endpoints]]\nbase_url = "{server.base_url}"\napi_key_env = "{name}"\n'
                for server, name in ((one, "FIRST_KEY"), (two, "SECOND_KEY"))
            )
        )
        environment |= {"FIRST_KEY": "sk-one", "SECOND_KEY": "sk-two"}
        servers = ("--endpoints", str(endpoints))
        code, said = await konko("--engine", "ray", "--processes", "2", "--limit", "30", *servers)
        assert code == 0, said
        assert len(output.read_bytes().splitlines()) == 30
        received = [sum(r.method == "POST" for r in each.requests) for each in (one, two)]
        assert min(received) > 5, f"both are used: {received}"
        assert sum(received) == 30
        code, said = await konko("--processes", "1", *servers)
        assert code == 0, said
    rows = [json.loads(text)["custom_id"] for text in output.read_bytes().splitlines()]
    assert sorted(rows) == sorted(f"id-{row}" for row in range(40))
