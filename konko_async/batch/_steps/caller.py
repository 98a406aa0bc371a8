"""Makes the calls of a row's steps, one after another, from the first that has no result yet."""

from __future__ import annotations

from typing import Any

import msgspec

from konko_async.batch._calls.caller import RowCaller, TypedCompletion
from konko_async.batch._input.row_parser import Row
from konko_async.batch._steps.book import StepBook
from konko_async.batch._steps.plan import StepPlan
from konko_async.batch._typed.asked import AskedBefore
from konko_async.batch._typed.typed_rows import RowType

__all__ = ["StepCaller"]


class StepCaller:
    """Answers rows in steps.

    Args:
        call: makes the call of one request.
        plan: the steps.
        book: keeps their results.
        typed: what the last answer is to be; None: anything.
    """

    def __init__(
        self, call: RowCaller, plan: StepPlan, book: StepBook, typed: RowType | None
    ) -> None:
        self._call = call
        self._plan = plan
        self._book = book
        self._typed = typed

    async def __call__(self, row: Row) -> TypedCompletion:
        """Return the answer of the last call, with the results of all steps.

        Raises:
            KonkoError: what a step failed with; those before it keep their results.
        """
        plan, known = self._plan, self._book.of(row)
        results, before = dict(known.results), known.before
        last: Any = None
        for number, step in enumerate(plan.steps):
            # The last call is made again even where its result is known: it is the row's answer.
            if step.name in results and number != plan.last_call:
                continue
            earlier = {name.name: results[name.name] for name in plan.steps[:number]}
            if step.function is not None:
                results[step.name] = await plan.call(row, number, earlier)
                continue
            request = self._request(row, number, earlier)
            last = await self._call(request)
            row.seconds += request.seconds
            results[step.name] = _text(last)
            if number != plan.last_call:
                before = AskedBefore.after(before, _completion(last).usage, _asked(last))
                self._book.note(row, step.name, results[step.name], before)
        self._book.forget(row)
        value = last.value if isinstance(last, TypedCompletion) else msgspec.UNSET
        asked = AskedBefore.joined(before, _asked(last))
        return TypedCompletion(_completion(last), value, asked, results)

    def _request(self, row: Row, number: int, earlier: dict[str, Any]) -> Row:
        request = self._plan.request(row, number, earlier)
        # The type is that of the row's answer, not of what leads to it.
        if number != self._plan.last_call and self._typed is not None:
            request.body = {
                name: value for name, value in request.body.items() if name != "response_format"
            }
        return request


def _completion(answer: Any) -> Any:
    return answer.completion if isinstance(answer, TypedCompletion) else answer


def _asked(answer: Any) -> AskedBefore | None:
    return answer.asked if isinstance(answer, TypedCompletion) else None


def _text(answer: Any) -> Any:
    if isinstance(answer, TypedCompletion):
        return answer.value
    return answer.choices[0].message.content or ""
