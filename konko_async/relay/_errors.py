"""What a browser is told of a failure: enough to act on, nothing that is not its business."""

from __future__ import annotations

from konko_async.errors import KonkoError

__all__ = ["Refusal"]


class Refusal(KonkoError):
    """A request that the relay does not pass on.

    Attributes:
        status: HTTP status.
        type: of the error object.
        param: the field at fault, or None.
        retry_after: seconds, or None.
    """

    status: int
    type: str
    param: str | None
    retry_after: float | None

    def __init__(
        self,
        status: int,
        message: str,
        *,
        type: str = "invalid_request_error",
        param: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.type = type
        self.param = param
        self.retry_after = retry_after
