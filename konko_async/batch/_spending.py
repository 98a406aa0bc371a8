"""Enforces max_cost and max_tokens_total: rows that might exceed them wait, or are not sent."""

from __future__ import annotations

import asyncio

from konko_async.batch._errors import BatchError
from konko_async.batch._input.row_parser import Row
from konko_async.batch._input.validate import token_guess
from konko_async.batch._output.answers import Used
from konko_async.batch._output.ledger import Ledger
from konko_async.batch._pricing import Prices
from konko_async.batch._report import StopReason

__all__ = ["Spending"]


class Spending:
    """Reserves for each row what it may use, and gives back what it did not.

    Args:
        ledger: what was used.
        prices: of the models.
        max_cost: in the prices' currency, over all runs of this output; None: no limit.
        max_tokens: prompts and answers, over all runs of this output; None: no limit.
        waits: whether a row that might pass a limit waits for others to end. Default True.
    """

    def __init__(
        self,
        ledger: Ledger,
        prices: Prices,
        *,
        max_cost: float | None,
        max_tokens: int | None,
        waits: bool = True,
    ) -> None:
        self._waits = waits
        self._ledger = ledger
        self._prices = prices
        self._max_cost = max_cost
        self._max_tokens = max_tokens
        self._reserved: dict[int, tuple[int, float]] = {}  # of the rows in flight
        self._tokens = 0
        self._cost = 0.0
        self._freed: asyncio.Future[None] | None = None
        self.active = max_cost is not None or max_tokens is not None

    async def reserve(self, row: Row) -> StopReason | None:
        """Reserve for a row, waiting for others to end if need be.

        Returns:
            None, or the limit that it would pass.

        Raises:
            BatchError: it has no known price, and there is a limit of cost.
        """
        tokens, cost = self._guess(row)
        while True:
            passed = self._passed(tokens, cost)
            if passed is None:
                self._add(row, tokens, cost)
                return None
            # Nothing is in flight that could give anything back: waiting would never end.
            if not self._reserved or not self._waits:
                return passed
            # One future is enough: the feed reserves for one row at a time.
            self._freed = asyncio.get_running_loop().create_future()
            await self._freed

    def take(self, row: Row) -> None:
        """Reserve for a row that was sent before this run; raises BatchError as :meth:`reserve`."""
        self._add(row, *self._guess(row))

    def _guess(self, row: Row) -> tuple[int, float]:
        prompt, answer = token_guess(row.body)
        if self._max_cost is None:
            return prompt + answer, 0.0
        found = self._prices.cost(row.body["model"], Used(prompt, answer))
        # Models of a file were checked before; from pipe to pipe
        # this is the first sight of the row.
        if found is None:
            raise unpriced([row.body["model"]])
        return prompt + answer, found

    def _add(self, row: Row, tokens: int, cost: float) -> None:
        self._reserved[row.index] = (tokens, cost)
        self._tokens += tokens
        self._cost += cost

    def _passed(self, tokens: int, cost: float) -> StopReason | None:
        ledger = self._ledger
        if self._max_tokens is not None:
            used = ledger.prompt_tokens + ledger.completion_tokens
            if used + self._tokens + tokens > self._max_tokens:
                return "max_tokens_total"
        if self._max_cost is not None and ledger.cost + self._cost + cost > self._max_cost:
            return "max_cost"
        return None

    def settle(self, row: Row) -> None:
        """Give back a row's reservation: what it used is in the ledger now."""
        tokens, cost = self._reserved.pop(row.index, (0, 0.0))
        self._tokens -= tokens
        self._cost = self._cost - cost if self._reserved else 0.0  # no rounding errors are kept
        if self._freed is not None and not self._freed.done():
            self._freed.set_result(None)


def unpriced(models: list[str]) -> BatchError:
    """Return the error for a limit of cost that cannot be kept."""
    names = ", ".join(models[:5])
    return BatchError(
        f"max_cost cannot be kept: the price of {names} is not known; "
        'give prices={"model": Price(prompt=..., completion=...)}'
    )
