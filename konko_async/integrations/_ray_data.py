"""Adds chat completions to a Ray Data set, as columns."""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from konko_async import (
    AsyncKonko,
    ConfigurationError,
    KonkoError,
    RateLimit,
)
from konko_async.batch import Patience, Template
from konko_async.integrations._ray_import import ray
from konko_async.integrations._ray_memo import Memo, Remembered, row_key

if TYPE_CHECKING:
    from ray.data import Dataset

    from konko_async.wire import ChatCompletion

__all__ = ["chat_completions"]

# Ray keeps so many batches of an async actor under way (RAY_DATA_DEFAULT_ASYNC_BATCH_UDF_...).
_BATCHES: Final = 4
# Seconds for which an actor that is dropped waits for its client to close.
_PATIENCE: Final = 1.0
_COLUMNS: Final = ("answer", "prompt_tokens", "completion_tokens", "error", "error_code")


class _ChatPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What an actor is to do; Ray stores it in clear, so that no key is in it."""

    prompt: str | None
    messages: str
    model: str
    system: str | None
    params: dict[str, Any]
    client: Callable[[], AsyncKonko]
    rate_limit: RateLimit | None
    max_concurrency: int
    max_outage: float
    key_column: str | None
    answers: str | None
    prefix: str


class _Failed(msgspec.Struct):
    error: str
    error_code: str


class ChatActor:
    """Makes the calls of batches of rows; Ray runs several at the same time on one loop.

    Args:
        plan: what to do.
    """

    def __init__(self, plan: _ChatPlan) -> None:
        self._plan = plan
        client = plan.client()
        # The original, as a copy made by with_options() closes nothing.
        self._owner = client
        if plan.rate_limit is not None:
            client = client.with_options(rate_limit=plan.rate_limit)
        self._client = client
        self._places: asyncio.Semaphore | None = None
        self._end: weakref.finalize[..., Any] | None = None
        self._template = None if plan.prompt is None else Template(plan.prompt)
        self._memo = None if plan.answers is None else Memo(plan.answers)

    async def __call__(self, batch: Any) -> Any:
        """Return a batch (an Arrow table) with the columns of the answers."""
        # Here and not in __init__: the loop that runs the calls is known only now.
        if self._places is None:
            # Ray calls nothing at the end of an actor: aiohttp would fill its log.
            self._end = weakref.finalize(
                self, _end, self._owner, asyncio.get_running_loop(), threading.get_ident()
            )
            # One for all batches of the actor, of which Ray runs several at once.
            self._places = asyncio.Semaphore(self._plan.max_concurrency)
        if self._memo is not None:
            self._memo.look()
        rows = batch.select(self._needed(batch)).to_pylist()
        done = await asyncio.gather(*(self._row(row) for row in rows))
        return _with_columns(batch, done, self._plan.prefix)

    def _needed(self, batch: Any) -> list[str]:
        plan = self._plan
        names = set(self._template.names) if self._template is not None else {plan.messages}
        if plan.key_column is not None:
            names.add(plan.key_column)
        return [name for name in batch.column_names if name in names]

    async def _row(self, row: dict[str, Any]) -> Remembered | _Failed:
        """Return what became of a row. Nothing is raised: it would end the whole job."""
        plan = self._plan
        try:
            request = self._request(row)
            key = row_key(row.get(plan.key_column or ""), request)
        except (ValueError, KeyError, TypeError) as error:
            return _Failed(str(error), "invalid_row")
        found = None if self._memo is None else self._memo.find(key)
        if found is not None:
            return found
        try:
            completion = await self._ask(request)
        except KonkoError as error:
            return _Failed(error.message, getattr(error, "code", None) or type(error).__name__)
        usage = completion.usage
        answer = Remembered(
            key,
            completion.choices[0].message.content if completion.choices else None,
            None if usage is None else usage.prompt_tokens,
            None if usage is None else usage.completion_tokens,
        )
        if self._memo is not None:
            self._memo.keep(answer)
        return answer

    async def _ask(self, request: dict[str, Any]) -> ChatCompletion:
        assert self._places is not None  # noqa: S101 - __call__() saw to it
        patience: Patience | None = None
        # The slot is kept through an outage, so that rows do not pile up behind a server that is
        # down.
        async with self._places:
            while True:
                try:
                    return await self._client.chat.completions.create(
                        model=request["model"],
                        messages=request["messages"],
                        priority="batch",
                        extra_body=self._plan.params,
                    )
                except KonkoError as error:
                    refused = error
                # Made for the first failure only, as nearly all rows have none.
                if patience is None:
                    patience = Patience(self._plan.max_outage)
                await patience.wait(refused)

    def _request(self, row: dict[str, Any]) -> dict[str, Any]:
        plan = self._plan
        if self._template is None:
            messages = row[plan.messages]
            if not isinstance(messages, list) or not messages:
                raise ValueError(f"column {plan.messages}: not a list of messages")
            # Arrow gives each struct all fields that any of them has.
            messages = [{k: v for k, v in one.items() if v is not None} for one in messages]
        else:
            messages = [{"role": "user", "content": self._template.fill(row)}]
        if plan.system is not None:
            messages.insert(0, {"role": "system", "content": plan.system})
        return {"model": plan.model, "messages": messages, **plan.params}

    async def close(self) -> None:
        """Close the client, and let others read the answers; idempotent."""
        if self._memo is not None:
            self._memo.close()
        if self._end is not None:
            self._end.detach()
        await self._owner.close()


def _end(client: AsyncKonko, loop: asyncio.AbstractEventLoop, thread: int) -> None:
    """Close a client that Ray has dropped, or whose process ends, in whatever thread that is."""
    if not loop.is_running():
        return
    closing = asyncio.run_coroutine_threadsafe(client.close(), loop)
    if threading.get_ident() != thread:
        with contextlib.suppress(TimeoutError):
            closing.result(_PATIENCE)


def _with_columns(table: Any, done: list[Remembered | _Failed], prefix: str) -> Any:
    import pyarrow as pa  # noqa: PLC0415 - of Ray's own extra

    columns: dict[str, list[Any]] = {name: [] for name in _COLUMNS}
    for one in done:
        for name, values in columns.items():
            values.append(
                getattr(one, name, None)
            )  # an answer has no error, and an error no answer
    for name, values in columns.items():
        kind = pa.int64() if name.endswith("tokens") else pa.string()
        table = table.append_column(prefix + name, pa.array(values, type=kind))
    return table


def chat_completions(
    dataset: Dataset,
    *,
    model: str,
    prompt: str | None = None,
    messages: str = "messages",
    system: str | None = None,
    params: Mapping[str, Any] | None = None,
    client: Callable[[], AsyncKonko] = AsyncKonko,
    actors: int = 1,
    max_concurrency: int = 256,
    max_outage: float = 600.0,
    rate_limit: RateLimit | None = None,
    rows_per_block: int | None = 1024,
    key_column: str | None = None,
    answers: str | None = None,
    prefix: str = "",
    num_cpus: float = 0.0,
) -> Dataset:
    """Add the answers of a model to a data set: one call per row.

    Columns that are added: ``answer``, ``prompt_tokens``, ``completion_tokens``, ``error`` and
    ``error_code``. A row that fails has an error and no answer; it never ends the job.

    Args:
        dataset: the rows.
        model: the model's id.
        prompt: the user's message, with ``{columns}`` of the row.
        messages: without a prompt, the column that holds lists of messages.
        system: a system message to go before.
        params: parameters such as ``max_tokens``.
        client: makes the client, in each actor: a function that can be imported there, or a
            ``functools.partial`` of the class. Default: ``AsyncKonko()``, which reads its key from
            the actor's environment (``runtime_env={"env_vars": ...}``). Keys that are arguments of
            a partial are stored by Ray in clear.
        actors: how many processes make the calls. Default 1.
        max_concurrency: calls in flight, per actor. Default 256.
        max_outage: seconds for which a row waits, while the circuit breaker is open or the server
            answers with 429, before that is its error. Default 600.
        rate_limit: for all actors together: kept in its ``store`` if it has one, else divided
            evenly between them.
        rows_per_block: rows are put into blocks of so many, as a block is what an actor is given:
            without that, one actor may get all. None: leave the blocks as they are. Default 1024.
        key_column: names rows, so that equal requests of different rows stay distinct.
        answers: a folder that all nodes have, where answers are kept as they come: what Ray does
            again, after the death of an actor, a node or the driver, is then taken from there and
            not paid twice. To be removed once the result is written.
        prefix: of the names of the new columns.
        num_cpus: that each actor reserves. Default 0: they wait for a network most of the time,
            and a job whose actors hold all CPUs can wait forever for one to read with.

    Returns:
        The data set, to be computed by whatever uses it.

    Raises:
        ConfigurationError: an argument cannot be used.
    """
    _check(actors, max_concurrency, dataset, prefix)
    plan = _ChatPlan(
        prompt=prompt,
        messages=messages,
        model=model,
        system=system,
        params=dict(params or {}),
        client=client,
        rate_limit=_divided(rate_limit, actors),
        max_concurrency=max_concurrency,
        max_outage=max_outage,
        key_column=key_column,
        answers=answers,
        prefix=prefix,
    )
    if prompt is not None:
        Template(prompt)  # says now what is wrong with it
    if rows_per_block is not None:
        dataset = dataset.repartition(target_num_rows_per_block=rows_per_block, strict=True)
    answered: Dataset = dataset.map_batches(
        ChatActor,
        fn_constructor_args=(plan,),
        # So that the batches under way together hold as many rows as calls may be in flight.
        batch_size=math.ceil(max_concurrency / _BATCHES),
        batch_format="pyarrow",
        zero_copy_batch=True,
        num_cpus=num_cpus,
        scheduling_strategy="SPREAD",
        # Two blocks at a time: the second one's rows go while the first one's last are waited for.
        compute=ray.data.ActorPoolStrategy(
            size=actors, max_tasks_in_flight_per_actor=4, max_concurrent_calls_per_actor=2
        ),
    )
    return answered


def _check(actors: int, max_concurrency: int, dataset: Any, prefix: str) -> None:
    for name, value in (("actors", actors), ("max_concurrency", max_concurrency)):
        if type(value) is not int or value < 1:
            raise ConfigurationError(f"{name} must be an integer of at least 1, not {value!r}")
    # Not fetched: that would run the data set's first steps before anybody has asked for a result.
    schema = dataset.schema(fetch_if_missing=False)
    taken = {prefix + name for name in _COLUMNS} & set(schema.names if schema else ())
    if taken:
        raise ConfigurationError(
            f"the data set has columns {', '.join(sorted(taken))} already: give a prefix="
        )


def _divided(limit: RateLimit | None, actors: int) -> RateLimit | None:
    """Return an actor's part of a limit."""
    if limit is None or limit.store is not None or actors == 1:
        return limit
    parts: dict[str, Any] = {}
    for name in ("requests_per_minute", "tokens_per_minute", "max_concurrency"):
        value = getattr(limit, name)
        if value is None or isinstance(value, str):
            continue
        if value < actors:
            raise ConfigurationError(
                f"{name} ({value}) cannot be divided between {actors} actors: use fewer actors, "
                "or a rate limit with a store"
            )
        # Rounded down: rounded up, all actors together would exceed the limit.
        parts[name] = value // actors
    return msgspec.structs.replace(limit, **parts)
