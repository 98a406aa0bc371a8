"""Counts what the interpreter executes: figures that are the same on a loaded machine."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from types import FrameType
from typing import Any

__all__ = ["per_unit"]

FEW, MANY = 500, 1500


def per_unit(work: Callable[[int, Callable[[], None]], Coroutine[Any, Any, object]]) -> str:
    """Return the bytecode instructions and calls of Python functions that one unit takes.

    Of this thread, the event loop's own included, the benchmarks' left out: what a long run takes
    beyond a short one.

    Args:
        work: does so many units, and calls its second argument when counting is to begin.
    """
    _count(work, FEW)  # what is made once is made before
    few, many = _count(work, FEW), _count(work, MANY)
    instructions, calls = ((b - a) / (MANY - FEW) for a, b in zip(few, many, strict=True))
    return f"{instructions:.0f} instructions, {calls:.1f} calls of Python functions"


def _count(work: Any, units: int) -> tuple[int, int]:
    instructions = calls = 0

    def step(_frame: FrameType, kind: str, _: object) -> Any:
        nonlocal instructions
        instructions += kind == "opcode"
        return step

    def enter(frame: FrameType, _kind: str, _: object) -> Any:
        nonlocal calls
        if "/benchmarks/" in frame.f_code.co_filename:
            return None
        calls += 1
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return step

    async def run() -> None:
        try:
            await work(units, lambda: sys.settrace(enter))
        finally:
            sys.settrace(None)

    asyncio.run(run())
    return instructions, calls
