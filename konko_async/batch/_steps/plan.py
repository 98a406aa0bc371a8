"""The steps of a run: what each asks, or does, with what is there by then."""

from __future__ import annotations

import inspect
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from konko_async import ConfigurationError
from konko_async.batch._errors import AnswerError
from konko_async.batch._input.prompt_template import Template
from konko_async.batch._input.row_parser import Row

__all__ = ["Step", "StepPlan", "plan_of"]

StepFunction = Callable[[dict[str, Any]], Any | Awaitable[Any]]
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_ANSWER: Final = "answer"


class Step(msgspec.Struct, frozen=True):
    """One step of each row (``run_batch(..., steps=[...])``).

    Attributes:
        name: of its result, which later prompts have as ``{name}``.
        prompt: the user's message, with ``{fields}`` of the row, the results of the steps before
            by their names, and ``{answer}``, the last of them; None for a function.
        function: called (awaited, if it is async) with a dict of all that, instead of a prompt;
            what it returns is the result. It may be called again for a row after a crash.
        model: for this step. Default: that of the run.
        system: a system message. Default: that of the run.
        params: parameters for this step, over those of the run.

    Raises:
        ConfigurationError: it has no name that can be used, or not just one of the two.
    """

    name: str
    prompt: str | None = None
    function: StepFunction | None = None
    model: str | None = None
    system: str | None = None
    params: Mapping[str, Any] = msgspec.field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(str(self.name)):
            raise ConfigurationError(
                f"a step's name has letters, digits and underscores, not {self.name!r:.60}"
            )
        if self.name == _ANSWER:
            raise ConfigurationError('no step can be named "answer": that is the one before')
        if (self.prompt is None) == (self.function is None):
            raise ConfigurationError(f"step {self.name!r} has either a prompt or a function")


class StepPlan:
    """The steps of a run.

    Args:
        steps: in their order; the first has a prompt.
        params: of the run, for the steps after the first.
        system: of the run.
    """

    def __init__(
        self, steps: Sequence[Step], params: Mapping[str, Any], system: str | None
    ) -> None:
        self.steps = tuple(steps)
        self._params = dict(params)
        self._system = system
        self._templates = [
            None if step.prompt is None else Template(step.prompt) for step in self.steps
        ]
        self.last_call = max(n for n, step in enumerate(self.steps) if step.prompt is not None)

    def described(self) -> list[dict[str, Any]]:
        """Return what makes them differ from others; a function is known by its name."""
        return [
            {
                "name": step.name,
                "prompt": step.prompt,
                "function": getattr(step.function, "__qualname__", None),
                "model": step.model,
                "system": step.system,
                "params": dict(step.params),
            }
            for step in self.steps
        ]

    def request(self, row: Row, number: int, results: Mapping[str, Any]) -> Row:
        """Return the row with the request of a step.

        Raises:
            AnswerError: its prompt asks for what is not there.
        """
        step, template = self.steps[number], self._templates[number]
        if number and template is not None:
            try:
                prompt = template.fill(self.fields(row, results))
            except ValueError as error:
                problem = str(error)
            else:
                system = self._system if step.system is None else step.system
                messages = [] if system is None else [{"role": "system", "content": system}]
                messages.append({"role": "user", "content": prompt})
                model = step.model or row.body["model"]
                body = {**self._params, **step.params, "messages": messages, "model": model}
                return msgspec.structs.replace(row, body=body, asked=number * 1000)
            raise AnswerError(f"step {step.name}: {problem}", code="step_failed")
        return msgspec.structs.replace(row)

    def fields(self, row: Row, results: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a step's prompt or function may use."""
        found = {**(row.fields or {}), **results}
        if results:
            found[_ANSWER] = list(results.values())[-1]
        return found

    async def call(self, row: Row, number: int, results: Mapping[str, Any]) -> Any:
        """Return what a function makes of the results so far, as plain JSON.

        Raises:
            AnswerError: it failed, or returned what is not JSON.
        """
        step = self.steps[number]
        assert step.function is not None  # noqa: S101 - the caller looked
        try:
            found = step.function(self.fields(row, results))
            if inspect.isawaitable(found):
                found = await found
            return msgspec.to_builtins(found)
        except Exception as error:
            raise AnswerError(
                f"step {step.name}: {type(error).__name__}: {error}", code="step_failed"
            ) from error


def plan_of(
    steps: Sequence[Step | tuple[str, str]] | None,
    *,
    prompt: str | None,
    params: Mapping[str, Any],
    system: str | None,
    endpoint: str,
) -> StepPlan | None:
    """Return the plan of a run; None if it has no steps.

    Raises:
        ConfigurationError: the steps cannot be used, or not together with the other options.
    """
    if not steps:
        return None
    made = [step if isinstance(step, Step) else Step(*step) for step in steps]
    if prompt is not None:
        raise ConfigurationError("prompt= and steps= exclude each other: the first step is it")
    if endpoint != "/v1/chat/completions":
        raise ConfigurationError("steps= are for chat rows")
    if made[0].prompt is None:
        raise ConfigurationError("the first of steps= has a prompt")
    names = [step.name for step in made]
    for name in names:
        if names.count(name) > 1:
            raise ConfigurationError(f"two of steps= are named {name!r}")
    return StepPlan(made, params, system)
