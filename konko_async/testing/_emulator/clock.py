"""The clock of the emulator."""

import asyncio
import time

__all__ = ["loop_time"]


def loop_time() -> float:
    """Seconds of the event loop's clock, so that simulated time holds for the emulator, too."""
    try:
        return asyncio.get_running_loop().time()
    except RuntimeError:
        # What asks the service without a loop, such as a test of its answers.
        return time.monotonic()
