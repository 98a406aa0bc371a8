"""Progress of ``map()`` and ``run_batch`` in notebooks, and as text elsewhere; needs no extra.

    report = await run_batch(client, "in.jsonl", "out.jsonl", on_progress=ProgressBar())
    async for result in ProgressBar(total=100).over(client.chat.completions.map(requests)):
        ...

In Jupyter one output is updated, by IPython's display protocol; elsewhere it is a line on standard
error: on a terminal one that changes, in a log one now and then. See docs/how-to/notebooks.md.
"""

from __future__ import annotations

import html
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Final, TypeVar, overload

from konko_async import MapResult
from konko_async.batch import Progress
from konko_async.blocking import MapResults as BlockingMapResults

__all__ = ["ProgressBar"]

R = TypeVar("R")

_FAST: Final = 0.25  # seconds between two states of an output that changes
_SLOW: Final = 10.0  # and of one that only grows
_HOUR, _MINUTE = 3600, 60


class ProgressBar:
    """Shows how far a batch or a ``map()`` is; use a new one for each.

    Args:
        total: how many results there will be, for a ``map()``; a batch knows it by itself.
        label: what stands before it.
        interval: seconds between two states. Default: 0.25, and 10 s where lines are only added.
    """

    def __init__(
        self, total: int | None = None, *, label: str = "", interval: float | None = None
    ) -> None:
        self._total = total
        self._label = label
        self._output = _notebook_output() or _text_output()
        self._interval = interval if interval is not None else self._output.interval
        self._began = time.monotonic()
        self._shown: float | None = None

    def __call__(self, progress: Progress) -> None:
        """Show the state of a batch: for ``run_batch(..., on_progress=)``.

        Args:
            progress: the state. The last one of a run is always shown.
        """
        notes = [f"{progress.failed} failed"] if progress.failed else []
        if progress.rows_per_second:
            notes.append(f"{progress.rows_per_second:.3g} rows/s")
        if progress.eta is not None and progress.done != progress.rows:
            notes.append(f"{_duration(progress.eta)} left")
        if progress.cost is not None:
            notes.append(f"{progress.cost:.4g} {progress.currency or ''}".rstrip())
        last = progress.done == progress.rows or progress.stopping
        self._show(progress.done, progress.rows, notes, last=last)

    @overload
    def over(self, results: BlockingMapResults[R]) -> Iterator[MapResult[R]]: ...

    @overload
    def over(self, results: AsyncIterator[MapResult[R]]) -> AsyncIterator[MapResult[R]]: ...

    def over(self, results: Any) -> Any:
        """Hand on the results of a ``map()``, and show how many there are.

        Args:
            results: what ``map()`` returned, of either client. It is closed when this is left.

        Returns:
            The same results, to be iterated over in the same way.
        """
        return self._over_async(results) if hasattr(results, "__anext__") else self._over(results)

    def _over(self, results: Any) -> Iterator[Any]:
        counts = [0, 0]
        with results:
            for result in results:
                self._count(result, counts)
                yield result
        self._show(counts[0], self._total, _failures(counts), last=True)

    async def _over_async(self, results: Any) -> AsyncIterator[Any]:
        counts = [0, 0]
        async with results:
            async for result in results:
                self._count(result, counts)
                yield result
        self._show(counts[0], self._total, _failures(counts), last=True)

    def _count(self, result: Any, counts: list[int]) -> None:
        counts[0] += 1
        counts[1] += result.error is not None
        self._show(counts[0], self._total, _failures(counts), last=False)

    def _show(self, done: int, total: int | None, notes: list[str], *, last: bool) -> None:
        now = time.monotonic()
        if not last and self._shown is not None and now - self._shown < self._interval:
            return
        self._shown = now
        of = f"{done:,}" if total is None else f"{done:,} of {total:,}"
        text = ", ".join([of, *notes, _duration(now - self._began)])
        self._output.show(f"{self._label}: {text}" if self._label else text, done, total, last=last)


def _failures(counts: list[int]) -> list[str]:
    return [f"{counts[1]:,} failed"] if counts[1] else []


def _duration(seconds: float) -> str:
    whole = round(seconds)
    if whole < _MINUTE:
        return f"{whole} s"
    if whole < _HOUR:
        return f"{whole // _MINUTE} min {whole % _MINUTE:02d} s"
    return f"{whole // _HOUR} h {whole % _HOUR // _MINUTE:02d} min"


# -- where it is shown -----------------------------------------------------------------------------


class _Output:
    """An output of a notebook's cell that is updated in place."""

    interval = _FAST

    def __init__(self, display: Callable[..., Any]) -> None:
        self._display = display
        self._handle: Any = None

    def show(self, text: str, done: int, total: int | None, *, last: bool) -> None:
        shown = _Shown(text, done, done if last and total is None else total)
        if self._handle is None:
            self._handle = self._display(shown, display_id=True)
        else:
            self._handle.update(shown)


class _Shown:
    """A state, as IPython asks for it: as HTML, and as text where that cannot be shown."""

    def __init__(self, text: str, done: int, total: int | None) -> None:
        self._text, self._done, self._total = text, done, total

    def __repr__(self) -> str:
        return self._text

    def _repr_html_(self) -> str:
        # Without a value the bar says that something goes on, and not how far it is.
        known = "" if self._total is None else f' value="{self._done}" max="{max(self._total, 1)}"'
        return f"<progress{known}></progress> {html.escape(self._text)}"


class _TextWidget:
    """Standard error: a line that changes on a terminal, else a line now and then."""

    def __init__(self, *, changes: bool) -> None:
        self._changes = changes
        self._width = 0
        self.interval = _FAST if changes else _SLOW

    def show(self, text: str, _done: int, _total: int | None, *, last: bool) -> None:
        if not self._changes:
            sys.stderr.write(f"{text}\n")
        else:
            # What the line before had more is overwritten.
            sys.stderr.write(f"\r{text.ljust(self._width)}" + ("\n" if last else ""))
            self._width = len(text)
        sys.stderr.flush()


def _notebook_output() -> _Output | None:
    """Return a cell's output; None outside of notebooks."""
    # Looked for, not imported: code in a kernel has loaded it.
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    # IPython in a terminal has a shell, too, but shows nothing that could be updated.
    if shell is None or not hasattr(shell, "kernel"):
        return None
    return _Output(sys.modules["IPython.display"].display)


def _text_output() -> _TextWidget:
    return _TextWidget(changes=sys.stderr.isatty())
