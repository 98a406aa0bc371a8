"""The benchmarks still run, check what was read, and tell all of it: a tiny run of a second or two."""

import json
import shutil

import pytest

from benchmarks.__main__ import main
from benchmarks.load import Server, Unfit, Worker
from benchmarks.results import Curve, Goal, Results
from benchmarks.rivals import ours
from benchmarks.rivals.table import RIVALS
from benchmarks.scenes import Scene
from benchmarks.stats import exponent, interval, percentile

pytestmark = pytest.mark.skipif(
    shutil.which("cc") is None, reason="the load server needs a C compiler"
)


@pytest.fixture
def server():
    with Server() as running:
        yield running
    assert running.total["cpu"] >= 0  # it ended by itself, and told


@pytest.fixture
def hand(server):
    worker = Worker(RIVALS["hand"], "asyncio", -1)
    yield worker
    worker.close()


def test_a_tiny_run_is_complete(tmp_path, capsys):
    told = tmp_path / "results.json"
    order = ["--only", "burst,whole,cost", "--rivals", "hand,hand_tenacity,floor", "--rounds", "2"]
    assert main([*order, "--loop", "asyncio", "--scale", "0.02", "--json", str(told)]) == 0
    found = json.loads(told.read_text())
    assert {"processor", "python", "versions", "commit", "date"} <= found["machine"].keys()
    goals = {goal["what"]: goal for goal in found["goals"]}
    assert goals["20 a write, as fast as read: ours / hand-written"]["limit"] == 0.70
    assert goals["100 at once: ours / hand-written"]["limit"] == 0.60
    assert {figure["question"] for figure in found["figures"]} == {"burst", "whole", "cost"}
    for figure in found["figures"]:
        assert len(figure["samples"]) == 2
        assert figure["q1"] <= figure["median"] <= figure["q3"]
        assert figure["what"] == "a retry" or min(figure["samples"]) > 0
    said = capsys.readouterr().out
    assert all(goal["what"] in said for goal in found["goals"])


@pytest.mark.parametrize(
    "scene",
    [
        Scene(chunks=300, write=20),
        Scene(chunks=30, pace=3_000),
        Scene(chunks=20, size=100),
        Scene(chunks=20, size=40_000, write=3),
        Scene(chunks=5, gate=3),
    ],
    ids=["flood", "paced", "small", "large", "gate"],
)
def test_what_is_sent_is_what_is_read(server, hand, scene):
    done = hand.do("streams", server, scene, streams=3)
    assert done["units"] == 3 * (scene.chunks + 2)
    assert done["server"]["requests"] == 4  # with the one that asks


def test_a_wrong_answer_fails_the_run(server, hand, monkeypatch):
    scene = Scene(chunks=10)
    lost = "".join(scene.words()[:-1])
    monkeypatch.setattr(
        "benchmarks.load.expectation",
        lambda _: {"chunks": 12, "counts": [12], "length": len(lost), "sha256": None},
    )
    with pytest.raises(Unfit, match="characters instead of"):
        hand.do("streams", server, scene, streams=1)
    monkeypatch.setattr("benchmarks.load.expectation", lambda _: {"chunks": 11, "counts": [11]})
    with pytest.raises(Unfit, match="12 chunks, not one of"):
        hand.do("streams", server, scene, streams=1)


async def test_everything_on_is_on(server):
    client = ours.make(server.url(Scene(size=300)), "on")
    await client.whole("x")
    await client.close()
    assert client.account.calls == {ours.MODEL: 1}
    assert client.account.tokens[ours.MODEL] > 0  # an observer that fails is only logged


def test_the_time_of_first_tokens_is_the_clients_own(server, hand):
    scene = Scene(chunks=3, delay=0.02, stamp=True)
    done = hand.do("first_tokens", server, scene, probes=3, load=0, load_url="")
    assert len(done["added_us"]) == 3
    assert all(added > 0 for added in done["added_us"])
    assert min(done["added_us"]) < 20_000  # the server's own 20 ms are not in it


def test_refusals_alternate(server):
    worker = Worker(RIVALS["hand_tenacity"], "asyncio", -1)
    try:
        scene = Scene(size=500, fail_gap=2)
        done = worker.do("wholes", server, scene, requests=5, at_once=1)
    finally:
        worker.close()
    assert done["server"]["requests"] == 2 * 5 + 1


def test_statistics():
    assert exponent([1, 10, 100], [5, 5, 5]) == pytest.approx(0)
    assert exponent([1, 10, 100], [3, 30, 300]) == pytest.approx(1)
    assert percentile(range(1, 101), 0.99) == 99
    low, high = interval([1, 2, 3, 4, 5])
    assert 1 <= low <= 3 <= high <= 5


def test_growth_is_named():
    def verdict(*ys):
        return Curve("q", "w", "x", "y", list(zip((1, 10, 100), ys, strict=True))).verdict

    assert verdict(5, 5.1, 5) == "flat"
    assert verdict(5, 14, 104) == "at most linear"
    assert verdict(1, 10, 1000) == "FASTER"
    assert verdict(50, 40, 30) == "falls"


def test_goals_are_judged_by_their_sense():
    assert Goal("q", "w", [1.0, 1.1, 1.2], 1.10).reached
    assert not Goal("q", "w", [1.0, 1.2, 1.3], 1.10).reached
    assert Goal("q", "w", [41.0], 40, at_least=True).reached
    assert not Goal("q", "w", [39.0], 40, at_least=True).reached
    assert Goal("q", "w", [39.0]).reached is None


def test_plots_are_drawn_of_what_there_is(tmp_path):
    plots = pytest.importorskip("benchmarks.plots")
    plots.draw(Results(), tmp_path)
    assert list(tmp_path.iterdir()) == []
