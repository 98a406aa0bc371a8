"""The report of a run as one HTML page that needs no other file."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape

from konko_async import __version__
from konko_async.batch import BatchReport, Histogram
from konko_async.cli._number_format import count, duration
from konko_async.cli._output import clean, redact
from konko_async.cli.bulk.report_numbers import INK, key_figures, subtitle
from konko_async.cli.bulk.report_plots import PANELS, svg

__all__ = ["page"]

_STYLE = """
:root { color-scheme: light; --ink: #18212f; --muted: #677284; --line: #e3e8ef; }
* { box-sizing: border-box; }
body { margin: 0; background: #f4f6f9; color: var(--ink);
  font: 15px/1.5 Inter, "Segoe UI", "Helvetica Neue", Arial, sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 44px 28px 56px; }
h1 { margin: 0; font-size: 28px; letter-spacing: -0.02em; }
.under { margin: 4px 0 28px; color: var(--muted); }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(125px, 1fr)); gap: 1px;
  margin: 0 0 22px; background: var(--line); border: 1px solid var(--line); border-radius: 12px;
  overflow: hidden; }
.figures div { background: #fff; padding: 16px 18px; }
.figures dt { color: var(--muted); font-size: 13px; }
.figures dd { margin: 0; font-size: 21px; font-weight: 650; letter-spacing: -0.01em;
  font-variant-numeric: tabular-nums; white-space: nowrap; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(440px, 100%), 1fr));
  gap: 22px; }
figure, .details { margin: 0; background: #fff; border: 1px solid var(--line);
  border-radius: 12px; padding: 18px 20px; }
figure svg { display: block; width: 100%; height: auto; }
.details { margin-top: 22px; overflow-x: auto; }
h2 { margin: 0 0 8px; font-size: 15px; }
table { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 7px 12px 7px 0; text-align: right; border-top: 1px solid var(--line); }
th:first-child, td:first-child { text-align: left; }
th { color: var(--muted); font-weight: 500; font-size: 13px; border: 0; }
footer { margin-top: 22px; color: var(--muted); font-size: 13px; }
@media print { body { background: #fff; } }
"""


def page(report: BatchReport, title: str) -> str:
    """Return the page."""
    return "\n".join(_parts(report, title)) + "\n"


def _parts(report: BatchReport, title: str) -> Iterator[str]:
    yield '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">'
    yield f"<title>{_safe(title)}</title>"
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<style>{_STYLE}</style>\n<main>"
    yield f'<h1>{_safe(title)}</h1>\n<p class="under">{_safe(subtitle(report))}</p>'
    yield '<dl class="figures">'
    for name, value, colour in key_figures(report):
        style = "" if colour == INK else f' style="color: {colour}"'
        yield f"<div><dt>{name}</dt><dd{style}>{_safe(value)}</dd></div>"
    yield '</dl>\n<div class="plots">'
    for panel in PANELS:
        yield f"<figure>{svg(report, panel)}</figure>"
    yield "</div>"
    yield from _times(report)
    yield f"<footer>konko-async {__version__}</footer>\n</main>\n</html>"


def _times(report: BatchReport) -> Iterator[str]:
    """The figures of the histograms as a table: a plot cannot be read to the digit."""
    rows = [("Latency", report.latency), ("Time to first token", report.first_token)]
    rows = [(name, histogram) for name, histogram in rows if histogram.total]
    if not rows:
        return
    heads = ("", "calls", "mean", "median", "90 %", "99 %", "longest")
    yield '<div class="details"><h2>Times</h2>\n<table><tr>'
    yield "".join(f"<th>{head}</th>" for head in heads) + "</tr>"
    for name, histogram in rows:
        yield "<tr>" + "".join(f"<td>{cell}</td>" for cell in _cells(name, histogram)) + "</tr>"
    yield "</table></div>"


def _cells(name: str, histogram: Histogram) -> list[str]:
    times = [histogram.mean, *map(histogram.percentile, (0.5, 0.9, 0.99)), histogram.max]
    return [name, count(histogram.total), *(duration(seconds or 0.0) for seconds in times)]


def _safe(text: str) -> str:
    # Names of files come from the user, who may pass the page on: no keys, no markup.
    return escape(clean(redact(text)))
