"""The calls to the server's files and batches, each repeated while its failure passes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from konko_async import AsyncKonko, Batch, KonkoError
from konko_async.batch._calls.patience import Patience
from konko_async.batch._calls.verdict import judge, outage, stopped_by
from konko_async.batch._errors import BatchError, BatchStoppedError
from konko_async.batch._options import Options
from konko_async.batch._output.filesystem import Filesystem
from konko_async.batch._server.jobs import Job
from konko_async.batch._server.parts import Part
from konko_async.batch._server.settings import ServerSide
from konko_async.middleware import classify

__all__ = ["ServerCalls"]

T = TypeVar("T")

_PAGES = 100  # entries that one page of a list has
_LOOKED_AT = 2000  # batches among which one is looked for by its file


class ServerCalls:
    """Makes the calls; every one waits out what passes, for up to ``max_outage`` seconds.

    Args:
        client: makes them.
        options: of the run.
        settings: of the jobs.
    """

    def __init__(self, client: AsyncKonko, options: Options, settings: ServerSide) -> None:
        # One attempt each: a batch that is created twice is paid twice, so that this class looks
        # before it tries again.
        self._client = client.with_options(retry=None, circuit_breaker=None, hedge_after=None)
        self._max_outage = options.max_outage
        self._files: Filesystem = options.files
        self._settings = settings

    async def _patiently(self, make: Callable[[], Awaitable[T]]) -> T:
        patience = Patience(self._max_outage)
        while True:
            try:
                return await make()
            except KonkoError as error:
                failure = error
            verdict = judge(failure, self._max_outage)
            if classify(failure).status in {404, 405}:
                raise _missing(failure)
            if verdict.action in {"end", "refused"}:
                raise stopped_by(failure, verdict)
            if verdict.action not in {"wait", "files"}:
                raise BatchError(f"the server refused: {failure.message}") from failure
            try:
                await patience.wait(failure)
            except KonkoError:
                raise outage(failure, self._max_outage) from failure

    async def upload(self, part: Part) -> str:
        """Upload a file; returns its id.

        Raises:
            BatchError: it cannot be uploaded.
        """
        name = part.path.replace("\\", "/").rpartition("/")[2]
        made = await self._patiently(
            lambda: self._client.files.create(
                file=(name, Path(part.path), "application/jsonl"), purpose="batch"
            )
        )
        return made.id

    async def submit(self, job: Job, *, maybe: bool = False) -> Batch:
        """Have the server answer the rows of a file that it has.

        Args:
            job: with the file.
            maybe: whether the batch may have been requested before.

        Raises:
            BatchError: the server refuses it.
        """
        assert job.file is not None  # noqa: S101 - it was uploaded
        file, looks = job.file, maybe

        async def create() -> Batch:
            nonlocal looks
            # A request whose answer was lost may have made one: it is found by its file, of which
            # there is one for each job.
            if looks and (found := await self._found(file)) is not None:
                return found
            looks = True
            return await self._client.batches.create(
                input_file_id=file,
                endpoint=job.url,
                completion_window=self._settings.completion_window,
            )

        return await self._patiently(create)

    async def _found(self, file: str) -> Batch | None:
        seen = 0
        async for batch in self._client.batches.list(limit=_PAGES):
            if batch.input_file_id == file:
                return batch
            seen += 1
            if seen >= _LOOKED_AT:
                break
        return None

    async def look(self, batch_id: str) -> Batch:
        """Return how a batch is going; raises BatchError."""
        return await self._patiently(lambda: self._client.batches.retrieve(batch_id))

    async def cancel(self, batch_id: str) -> None:
        """Cancel a batch; one that has ended meanwhile is left as it is."""
        try:
            await self._client.batches.cancel(batch_id)
        except KonkoError as error:
            # 409 and the like: look() says what it is now.
            if classify(error).transient:
                await self._patiently(lambda: self._client.batches.cancel(batch_id))

    async def download(self, file_id: str, path: str) -> None:
        """Write a file of the server to one beside the output, readable by its owner alone.

        Raises:
            BatchError: it cannot be read, or written.
        """
        try:
            descriptor = self._files.create(path)
        except OSError as error:
            problem = f"{path} cannot be written: {error.strerror}"
        else:
            self._files.close(descriptor)
            await self._patiently(lambda: self._client.files.download(file_id, path))
            return
        raise BatchError(problem)

    async def forget(self, *file_ids: str | None) -> None:
        """Delete files from the server; one that cannot be deleted stays."""
        for file_id in file_ids:
            if file_id is None:
                continue
            try:
                await self._client.files.delete(file_id)
            except KonkoError:
                continue


def _missing(error: KonkoError) -> BatchStoppedError:
    met = " ".join(error.message.split()).rstrip(".")
    problem = BatchStoppedError(
        f"the server does not run this batch: {met}. It may have no /files and /batches: run the "
        "same command without server_side=, which makes the calls from here",
        reason="not_found",
    )
    problem.attempts = error.attempts
    return problem
