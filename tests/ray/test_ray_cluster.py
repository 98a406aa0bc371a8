"""A cluster of two nodes on loopback, an actor killed in the middle; `make ray-storm` does more."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("ray")

STORM = Path(__file__).parents[1] / "soak" / "raystorm.py"


@pytest.mark.timeout(240)
@pytest.mark.parametrize("scenario", ["batch-actor", "data-actor"])
def test_an_actor_that_is_killed_costs_what_was_in_flight(scenario):
    command = [sys.executable, str(STORM), "--rows", "400", "--kills", "1", "--only", scenario]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert (told["lost"], told["twice"], told["kills"], told["problems"]) == (0, 0, 1, [])
