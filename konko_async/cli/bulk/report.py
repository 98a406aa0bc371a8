"""The report of a run as a file: JSON, a page, or a picture."""

from __future__ import annotations

from pathlib import Path

from konko_async.batch import BatchReport
from konko_async.cli._output import note

__all__ = ["write_report"]


def write_report(path: str, report: BatchReport, *, title: str = "Batch report") -> None:
    """Write the report of a run in the format that the ending of its name stands for."""
    target = Path(path)
    try:
        target.write_bytes(_rendered(target.suffix.lower(), report, title))
    # The run is over and its answers are safe: its exit code says how it went, not how this did.
    except OSError as error:
        note(f"the report {path} could not be written: {error.strerror}")
        return
    note(f"report: {path}")


def _rendered(suffix: str, report: BatchReport, title: str) -> bytes:
    if suffix == ".json":
        return report.to_json().encode() + b"\n"
    if suffix == ".png":
        from konko_async.cli.bulk.report_plots import picture  # noqa: PLC0415 - slow to import

        return picture(report, title)
    from konko_async.cli.bulk.report_page import page  # noqa: PLC0415 - slow to import

    return page(report, title).encode()
