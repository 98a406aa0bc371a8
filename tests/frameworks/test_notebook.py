"""Progress in notebooks; a real kernel executes one in tests/ecosystem/suites."""

import io
import sys
import types

import pytest
from framework_kit import KEY, MODEL, emulating

from konko_async import AsyncKonko
from konko_async.batch import run_batch
from konko_async.blocking import Konko
from konko_async.integrations.notebook import ProgressBar
from konko_async.testing import faults

ASK = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}


class Kernel:
    """IPython as a kernel has it: what was displayed, and updated."""

    def __init__(self):
        self.shown = []
        self.displays = 0

    def display(self, value, display_id):
        assert display_id is True
        self.displays += 1
        self.update(value)
        return self

    def update(self, value):
        self.shown.append((repr(value), value._repr_html_()))


@pytest.fixture
def kernel(monkeypatch):
    found = Kernel()
    shell = types.SimpleNamespace(kernel=found)
    module = types.SimpleNamespace(get_ipython=lambda: shell)
    monkeypatch.setitem(sys.modules, "IPython", module)
    monkeypatch.setitem(sys.modules, "IPython.display", found)
    return found


@pytest.fixture
def server():
    with emulating() as (found, _):
        yield found


async def test_a_map_in_a_notebook(server, kernel):
    server.script(faults.Status(400))
    async with AsyncKonko(KEY, server.base_url) as client:
        bar = ProgressBar(5, label="<five>", interval=0)
        results = [r async for r in bar.over(client.chat.completions.map([ASK] * 5))]
    assert len(results) == 5
    assert kernel.displays == 1
    text, shown = kernel.shown[-1]
    assert text.startswith("<five>: 5 of 5, 1 failed, ")
    assert shown.startswith('<progress value="5" max="5"></progress> &lt;five&gt;: 5 of 5')
    assert len(kernel.shown) >= 5


def test_a_blocking_map_of_unknown_length(server, kernel):
    with Konko(KEY, server.base_url) as konko:
        bar = ProgressBar()
        results = list(bar.over(konko.chat.completions.map(ASK for _ in range(3))))
    assert len(results) == 3
    assert kernel.shown[0][1].startswith("<progress></progress> 1, ")
    assert kernel.shown[-1][1].startswith('<progress value="3" max="3"></progress> 3, ')


async def test_a_map_that_is_left_is_closed(server, kernel):
    async with AsyncKonko(KEY, server.base_url) as client:
        results = client.chat.completions.map(ASK for _ in range(10**9))
        bar = ProgressBar().over(results)
        async for _ in bar:
            break
        await bar.aclose()
        assert results.in_flight == 0


async def test_a_batch_in_a_notebook(server, kernel, tmp_path):
    source = tmp_path / "in.jsonl"
    source.write_text('{"text": "a"}\n{"text": "b"}\n')
    async with AsyncKonko(KEY, server.base_url) as client:
        await run_batch(
            client,
            source,
            tmp_path / "out.jsonl",
            model=MODEL,
            prompt="{text}",
            on_progress=ProgressBar(),
        )
    assert kernel.displays == 1
    assert kernel.shown[-1][0].startswith("2 of 2, ")


@pytest.mark.parametrize("terminal", [True, False])
def test_elsewhere_it_is_text(server, monkeypatch, terminal):
    err = io.StringIO()
    err.isatty = lambda: terminal
    monkeypatch.setattr(sys, "stderr", err)
    # IPython in a terminal is no notebook.
    module = types.SimpleNamespace(get_ipython=types.SimpleNamespace)
    monkeypatch.setitem(sys.modules, "IPython", module)
    with Konko(KEY, server.base_url) as konko:
        list(ProgressBar(3, interval=0).over(konko.chat.completions.map([ASK] * 3)))
    text = err.getvalue()
    assert text.count("\n") == (1 if terminal else 4)
    assert ("\r" in text) == terminal
    assert text.endswith(" s\n")
