"""A streamed answer to browsers: as server-sent events, safely, and resumable.

Adapters: :mod:`konko_async.relay.aiohttp_web`, and :mod:`konko_async.relay.starlette_app` (extra
``starlette``). This module needs neither.
"""

from konko_async.relay._errors import (
    PublicError,
    RefusalError,
    StoreFullError,
    StreamLostError,
    StreamTooLongError,
    public_error,
)
from konko_async.relay._format import ChatCall, Dialect, Format, StopReason, StreamStats
from konko_async.relay._http import RelayReply, RelayRequest
from konko_async.relay._hub import HubSource, StreamHub
from konko_async.relay._memory import MemoryStore
from konko_async.relay._openai import ANSWER_FIELDS, OpenAIFormat
from konko_async.relay._policy import MESSAGE_FIELDS, OPENAI, PARAMS, RelayOptions
from konko_async.relay._pump import Delivery, ReaderGoneError, Sink, pump
from konko_async.relay._service import AuthHook, RelayService
from konko_async.relay._source import Source, StreamSource
from konko_async.relay._store import Page, StreamInfo, StreamStore, Watched
from konko_async.relay._store_contract import check_store

__all__ = [
    "ANSWER_FIELDS",
    "MESSAGE_FIELDS",
    "OPENAI",
    "PARAMS",
    "AuthHook",
    "ChatCall",
    "Delivery",
    "Dialect",
    "Format",
    "HubSource",
    "MemoryStore",
    "OpenAIFormat",
    "Page",
    "PublicError",
    "ReaderGoneError",
    "RefusalError",
    "RelayOptions",
    "RelayReply",
    "RelayRequest",
    "RelayService",
    "Sink",
    "Source",
    "StopReason",
    "StoreFullError",
    "StreamHub",
    "StreamInfo",
    "StreamLostError",
    "StreamSource",
    "StreamStats",
    "StreamStore",
    "StreamTooLongError",
    "Watched",
    "check_store",
    "public_error",
    "pump",
]
