"""Summaries of many documents, long ones in parts; resumable at any time.

See docs/how-to/summarize.md.

style = default_style("a-model", context=8192)
report = await summarize(client, lambda: read_documents(["papers/"]), "out.jsonl", style=style)
"""

from konko_async.summarize._markdown import without_common_folder
from konko_async.summarize._merge import merge_reports
from konko_async.summarize._run import summarize, work_folder
from konko_async.summarize._style import (
    Kind,
    Style,
    TextSource,
    context_of,
    default_style,
    tokens_in,
)
from konko_async.summarize._summary import Summary, SummaryReport
from konko_async.summarize._write import OutputFormat, render, write_summaries

__all__ = [
    "Kind",
    "OutputFormat",
    "Style",
    "Summary",
    "SummaryReport",
    "TextSource",
    "context_of",
    "default_style",
    "merge_reports",
    "render",
    "summarize",
    "tokens_in",
    "without_common_folder",
    "work_folder",
    "write_summaries",
]
