"""Backs off after one call's failure, for jobs whose calls are not the rows of a run."""

from __future__ import annotations

import asyncio
import random
from typing import Final

from konko_async import KonkoError
from konko_async.batch._calls.verdict import judge
from konko_async.middleware import resting

__all__ = ["Patience"]

_LONGEST_WAIT: Final = 30.0


class Patience:
    """Waits before the next attempt of a call whose failure passes by itself.

    Args:
        max_outage: for how many seconds in all, before the call's error is final.
    """

    def __init__(self, max_outage: float) -> None:
        self._max_outage = max_outage
        self._left = max_outage
        self._waited = 0.0

    async def wait(self, error: KonkoError) -> None:
        """Wait for Retry-After, or for as long again as all waits so far.

        Raises:
            KonkoError: the error, if it is final.
        """
        verdict = judge(error, self._max_outage)
        asked = verdict.wait
        # As long again as all waits before it: 1 s, 1 s, 2 s, 4 s and so on. With a Retry-After of
        # 0, a tenth of a second keeps this from being a busy loop.
        wait = min(max(1.0, self._waited), _LONGEST_WAIT) if asked is None else max(asked, 0.1)
        wait *= random.uniform(1.0, 1.2)  # noqa: S311 - jitter, so that calls do not return together
        if verdict.action not in {"wait", "files"} or wait > self._left:
            raise error
        with resting():
            await asyncio.sleep(wait)
        self._left -= wait
        self._waited += wait
