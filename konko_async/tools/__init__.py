"""Python functions as tools of a model, and the loop that calls them until it is done."""

from konko_async.tools._arguments import arguments_problem, ended_well, history_arguments
from konko_async.tools._errors import ToolFailedError, ToolLimitError, ToolRunError
from konko_async.tools._events import (
    ReasoningDelta,
    RoundFinished,
    TextDelta,
    ToolEvent,
    ToolFinished,
    ToolInvocation,
    ToolOutcome,
    ToolRunResult,
    ToolStarted,
)
from konko_async.tools._run import ToolRun
from konko_async.tools._tool import Tool

__all__ = [
    "ReasoningDelta",
    "RoundFinished",
    "TextDelta",
    "Tool",
    "ToolEvent",
    "ToolFailedError",
    "ToolFinished",
    "ToolInvocation",
    "ToolLimitError",
    "ToolOutcome",
    "ToolRun",
    "ToolRunError",
    "ToolRunResult",
    "ToolStarted",
    "arguments_problem",
    "ended_well",
    "history_arguments",
]
