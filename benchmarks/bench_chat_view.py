"""What `konko-async chat` costs on a terminal: CPU per token of the Markdown that it draws.

    python benchmarks/bench_chat_view.py

Each answer comes in tokens of four characters. "every token" draws after each of them, which is
more than the program ever does; "paced" draws 25 times a second, as it does, while 100 tokens come
in a second. For comparison: rich.live.Live around rich.markdown.Markdown, drawn after each token,
for answers of a few kB only, because its cost per token grows with the answer.
"""

import io
import time

from rich.live import Live
from rich.markdown import Markdown

from konko_async.cli.terminal.live import screen_console
from konko_async.cli.terminal.pane import Pane
from konko_async.cli.terminal.screen_region import Region

PROSE = """## A heading

Some *emphasis*, some **bold words** and `code`, in a paragraph that is long enough to be wrapped
at the edge of the terminal, as most paragraphs are.

- one item of a list
- another one, with a [link](http://example.com)

| a | b |
|---|---|
| 1 | 2 |

```python
def f(x):
    return [y for y in range(x)]
```

"""
CODE = "```python\n" + "def f(x):\n    # a comment\n    return [y for y in range(x)]\n\n" * 5000
TOKEN = 4
PACED = 4  # tokens that come between two drawings


def ours(text, every):
    stream = io.StringIO()
    region = Region(stream, lambda: (80, 24), reflow=False)
    pane = Pane(screen_console(stream), 79)
    began = time.process_time()
    for number, start in enumerate(range(0, len(text), TOKEN)):
        pane.add(text[start : start + TOKEN])
        if number % every == 0:
            region.paint(pane.settle(), pane.draft())
            stream.seek(0)
            stream.truncate()
    region.paint(pane.finish(), [])
    return time.process_time() - began


def live(text):
    console = screen_console(io.StringIO())
    began = time.process_time()
    with Live(console=console, auto_refresh=False, vertical_overflow="visible") as drawn:
        for end in range(TOKEN, len(text) + TOKEN, TOKEN):
            drawn.update(Markdown(text[:end]), refresh=True)
    return time.process_time() - began


def main():
    print(f"{'answer':<12}{'kB':>5}{'drawn':>14}{'us/token':>10}")
    for name, unit in (("mixed", PROSE), ("code", CODE)):
        for size in (10_000, 200_000):
            text = (unit * (size // len(unit) + 1))[:size]
            for how, every in (("every token", 1), ("paced", PACED)):
                took = ours(text, every) / (size / TOKEN)
                print(f"{name:<12}{size // 1000:>5}{how:>14}{took * 1e6:>10.0f}")
    for size in (2_000, 8_000):
        text = (PROSE * (size // len(PROSE) + 1))[:size]
        took = live(text) / (size / TOKEN)
        print(f"{'rich.live':<12}{size // 1000:>5}{'every token':>14}{took * 1e6:>10.0f}")


if __name__ == "__main__":
    main()
