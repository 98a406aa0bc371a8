"""Batches that the server runs by itself, over an uploaded file."""

from __future__ import annotations

from typing import Any, Final

from konko_async.wire._base import Answered, Wire

__all__ = ["Batch", "BatchList", "BatchProblem", "BatchProblems", "BatchRequestCounts"]

_ENDED: Final = frozenset({"failed", "completed", "expired", "cancelled"})


class BatchRequestCounts(Wire):
    """How many requests of a batch the server has worked on."""

    total: int = 0
    completed: int = 0
    failed: int = 0


class BatchProblem(Wire):
    """Why a batch was refused.

    Attributes:
        code: such as ``invalid_json_line`` or ``token_limit_exceeded``.
        message: in words.
        line: of the input file, from 1.
        param: the field that is wrong.
    """

    code: str | None = None
    message: str | None = None
    line: int | None = None
    param: str | None = None


class BatchProblems(Wire):
    """Why a batch was refused, one entry for each thing."""

    data: list[BatchProblem] | None = None
    object: str = "list"


class Batch(Answered, Wire):
    """A batch on the server (OpenAI's API reference, "The Batch object"). Times are Unix seconds.

    Attributes:
        id: its id.
        status: ``validating``, ``in_progress``, ``finalizing``, ``completed``, ``failed``
            (refused as a whole), ``expired``, ``cancelling`` or ``cancelled``.
        endpoint: such as ``/v1/chat/completions``.
        input_file_id: the file with its requests.
        completion_window: such as ``24h``.
        output_file_id: the file with the answers; None until there is one.
        error_file_id: the file with the requests that failed or expired; None if there is none.
        errors: why it was refused as a whole.
        request_counts: how far it is.
        metadata: up to 16 texts that were given with it.
        usage: tokens of all its answers, where a server reports them.
        model: the model of its requests, where a server reports it.
    """

    id: str
    status: str
    endpoint: str | None = None
    input_file_id: str | None = None
    completion_window: str | None = None
    object: str = "batch"
    output_file_id: str | None = None
    error_file_id: str | None = None
    errors: BatchProblems | None = None
    request_counts: BatchRequestCounts | None = None
    metadata: dict[str, Any] | None = None
    usage: Any = None
    model: str | None = None
    created_at: int | float | None = None
    in_progress_at: int | float | None = None
    expires_at: int | float | None = None
    finalizing_at: int | float | None = None
    completed_at: int | float | None = None
    failed_at: int | float | None = None
    expired_at: int | float | None = None
    cancelling_at: int | float | None = None
    cancelled_at: int | float | None = None

    @property
    def ended(self) -> bool:
        """Whether its status will not change any more."""
        return self.status in _ENDED


class BatchList(Answered, Wire):
    """One page of batches; ``has_more`` says whether another follows the last one."""

    data: list[Batch]
    object: str = "list"
    first_id: str | None = None
    last_id: str | None = None
    has_more: bool | None = None
