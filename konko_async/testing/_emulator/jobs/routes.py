"""Answers /files and /batches."""

import asyncio
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import parse_qs, unquote

import msgspec
from aiohttp import BodyPartReader, web

from konko_async.testing._emulator.errors import ApiError
from konko_async.testing._emulator.jobs.run import AnswerRow, BatchJob, end, now
from konko_async.testing._emulator.jobs.settings import BatchSettings
from konko_async.testing._emulator.log import LoggedCall
from konko_async.testing._emulator.reply import Reply, json_reply

_encode: Final = msgspec.json.Encoder().encode
_CHUNK: Final = 256 * 1024
_PAGE: Final = 20
_PURPOSES: Final = frozenset(
    {"assistants", "batch", "fine-tune", "vision", "user_data", "evals", "batch_output"}
)
ENDPOINTS: Final = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings")


async def read_upload(request: web.BaseRequest, call: LoggedCall) -> ApiError | None:
    """Read a multipart form into `call`: its texts as the body, its file as the upload."""
    fields: dict[str, Any] = {}
    try:
        async for part in await request.multipart():
            if not isinstance(part, BodyPartReader):
                continue
            data = bytearray()
            while chunk := await part.read_chunk(_CHUNK):
                data += chunk
            if part.filename is None:
                fields[part.name or ""] = data.decode("utf-8", "replace")
            else:
                call.upload = bytes(data)
                fields["filename"], fields["bytes"] = part.filename, len(data)
    except (ValueError, AssertionError, web.RequestPayloadError):
        return ApiError(400, "The form could not be read.", code="invalid_form")
    call.body = fields
    return None


class Jobs:
    """The files of an emulator, and its batches."""

    def __init__(
        self, settings: Callable[[], BatchSettings], answer: AnswerRow, changed: Callable[[], None]
    ) -> None:
        self._settings = settings
        self._answer = answer
        self._changed = changed
        self.files: dict[str, dict[str, Any]] = {}
        self.contents: dict[str, bytes] = {}
        self.batches: dict[str, BatchJob] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._count = 0

    def handles(self, route: str) -> bool:
        """Whether a path is one of these."""
        return route.split("/")[1:2] in (["files"], ["batches"])

    def reply(self, call: LoggedCall, route: str, problem: ApiError | None) -> Reply:
        """Answer a request.

        Raises:
            ApiError: it is an error.
        """
        query = {name: values[-1] for name, values in parse_qs(call.path.partition("?")[2]).items()}
        _, kind, *rest = route.split("/")
        name, action = unquote(rest[0]) if rest else "", "/".join(rest[1:])
        known: dict[tuple[str, str, bool, str], Callable[[], Reply]] = {
            ("files", "POST", False, ""): lambda: self._upload(call, problem),
            ("files", "GET", False, ""): lambda: self._list_files(query),
            ("files", "GET", True, ""): lambda: _json(self._file(name)),
            ("files", "DELETE", True, ""): lambda: self._delete(name),
            ("files", "GET", True, "content"): lambda: self._content(name),
            ("batches", "POST", False, ""): lambda: self._create(call, problem),
            ("batches", "GET", False, ""): lambda: self._list_batches(query),
            ("batches", "GET", True, ""): lambda: _json(self._batch(name).shown),
            ("batches", "POST", True, "cancel"): lambda: self._cancel(name),
        }
        made = known.get((kind, call.method, bool(rest), action))
        if made is None:
            raise ApiError(404, f"Invalid URL ({call.method} {route})", code="unknown_url")
        return made()

    def _new(self, prefix: str) -> str:
        self._count += 1
        return f"{prefix}{self._count:024x}"

    # -- files -----------------------------------------------------------------------------------

    def _upload(self, call: LoggedCall, problem: ApiError | None) -> Reply:
        data, call.upload = call.upload, None
        if problem is not None:
            raise problem
        if data is None or not isinstance(call.body, dict):
            raise ApiError(400, "A file is to be uploaded as multipart/form-data.", param="file")
        purpose = call.body.get("purpose")
        if purpose not in _PURPOSES:
            raise ApiError(400, f"{purpose!r} is not a purpose.", param="purpose")
        most = self._settings().max_bytes
        if purpose == "batch" and len(data) > most:
            raise ApiError(413, f"The file has {len(data)} bytes; {most} are allowed.")
        return _json(self._keep(data, call.body["filename"], purpose))

    def _keep(self, data: bytes, name: str, purpose: str) -> dict[str, Any]:
        made = self._new("file-")
        self.contents[made] = data
        self.files[made] = shown = {
            "id": made,
            "object": "file",
            "bytes": len(data),
            "created_at": now(),
            "filename": name,
            "purpose": purpose,
            "status": "processed",
        }
        return shown

    def _file(self, id: str) -> dict[str, Any]:
        found = self.files.get(id)
        if found is None:
            raise ApiError(404, f"No such File object: {id[:60]}", param="id")
        return found

    def _content(self, id: str) -> Reply:
        self._file(id)
        return Reply(200, {"content-type": "application/octet-stream"}, [self.contents[id]])

    def _delete(self, id: str) -> Reply:
        self._file(id)
        del self.files[id], self.contents[id]
        return _json({"id": id, "object": "file", "deleted": True})

    def _list_files(self, query: dict[str, str]) -> Reply:
        found = [
            shown
            for shown in self.files.values()
            if query.get("purpose") in {None, shown["purpose"]}
        ]
        if query.get("order") != "asc":
            found.reverse()
        return _page(found, query)

    # -- batches ---------------------------------------------------------------------------------

    def _create(self, call: LoggedCall, problem: ApiError | None) -> Reply:
        if problem is not None:
            raise problem
        body = call.body
        if body.get("endpoint") not in ENDPOINTS:
            allowed = ", ".join(ENDPOINTS)
            raise ApiError(400, f"The endpoint must be one of {allowed}.", param="endpoint")
        if body.get("completion_window") != "24h":
            raise ApiError(400, "The completion_window must be 24h.", param="completion_window")
        source = str(body.get("input_file_id"))
        if self._file(source)["purpose"] != "batch":
            raise ApiError(400, "The file's purpose is not batch.", param="input_file_id")
        job = BatchJob(self._shown(body), self.contents[source], self._settings(), self._answer)
        self.batches[job.shown["id"]] = job
        queued = sum(other.rows for other in self.batches.values() if not other.ended) - job.rows
        task = asyncio.get_running_loop().create_task(self._run(job, queued))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return _json(job.shown)

    def _shown(self, body: dict[str, Any]) -> dict[str, Any]:
        created = now()
        return {
            "id": self._new("batch_"),
            "object": "batch",
            "endpoint": body["endpoint"],
            "errors": None,
            "input_file_id": body["input_file_id"],
            "completion_window": body["completion_window"],
            "status": "validating",
            "output_file_id": None,
            "error_file_id": None,
            "created_at": created,
            "expires_at": created + 24 * 3600,
            "request_counts": {"total": 0, "completed": 0, "failed": 0},
            "metadata": body.get("metadata"),
        }

    async def _run(self, job: BatchJob, queued: int) -> None:
        await job.run(queued)
        shown = job.shown
        for name, kind, lines in (("output", "good", job.good), ("error", "bad", job.bad)):
            if lines:
                file_name = f"{shown['id']}_{name}.jsonl"
                kept = self._keep(b"\n".join([*lines, b""]), file_name, "batch_output")
                shown[f"{name}_file_id"] = kept["id"]
            setattr(job, kind, lines[:1])  # what stands in the file need not be kept twice
        job.finish()
        self._changed()

    def _batch(self, id: str) -> BatchJob:
        found = self.batches.get(id)
        if found is None:
            raise ApiError(404, f"No batch found with id '{id[:60]}'.", param="id")
        return found

    def _cancel(self, id: str) -> Reply:
        job = self._batch(id)
        if job.ended:
            raise ApiError(409, f"A batch that is {job.shown['status']} cannot be cancelled.")
        job.cancel()
        return _json(job.shown)

    def _list_batches(self, query: dict[str, str]) -> Reply:
        return _page([job.shown for job in reversed(self.batches.values())], query)

    async def close(self) -> None:
        """End what runs."""
        for task in list(self._tasks):
            await end(task)


def _json(value: Any) -> Reply:
    return json_reply(200, _encode(value))


def _page(found: list[dict[str, Any]], query: dict[str, str]) -> Reply:
    """One page of a list, after the entry that the query names."""
    text = query.get("limit", str(_PAGE))
    if not text.isdecimal() or not int(text):
        raise ApiError(400, "limit must be a number above 0.", param="limit")
    ids = [entry["id"] for entry in found]
    after = query.get("after")
    if after is not None and after not in ids:
        raise ApiError(400, f"There is no {after[:60]!r} to come after.", param="after")
    begin = 0 if after is None else ids.index(after) + 1
    page = found[begin : begin + int(text)]
    return _json(
        {
            "object": "list",
            "data": page,
            "first_id": page[0]["id"] if page else None,
            "last_id": page[-1]["id"] if page else None,
            "has_more": begin + len(page) < len(found),
        }
    )
