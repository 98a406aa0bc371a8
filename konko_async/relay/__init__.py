"""A streamed answer to browsers: as server-sent events, safely, and resumable.

Adapters: :mod:`konko_async.relay.aiohttp_web`, and :mod:`konko_async.relay.starlette_app` (extra
``starlette``). This module needs neither.
"""

from konko_async.relay._asked import CallKeywords, call_keywords
from konko_async.relay._drain import Drain
from konko_async.relay._errors import (
    PublicError,
    RefusalError,
    StoreFullError,
    StreamLostError,
    StreamTooLongError,
    public_error,
)
from konko_async.relay._format import (
    ChatCall,
    Dialect,
    Format,
    RunFormat,
    StopReason,
    StreamStats,
)
from konko_async.relay._health import CircuitHealth, Health, ModelHealth, health
from konko_async.relay._http import RelayReply, RelayRequest
from konko_async.relay._hub import HubSource, StreamHub
from konko_async.relay._memory import MemoryStore
from konko_async.relay._openai import ANSWER_FIELDS, OpenAIFormat
from konko_async.relay._policy import MESSAGE_FIELDS, OPENAI, PARAMS, RelayOptions
from konko_async.relay._pump import Delivery, ReaderGoneError, Sink, pump
from konko_async.relay._run_source import ToolRunSource
from konko_async.relay._service import AuthHook, RelayService
from konko_async.relay._source import Source, StreamSource
from konko_async.relay._store import Page, StreamInfo, StreamStore, Watched
from konko_async.relay._store_contract import check_store
from konko_async.relay._tenants import Tenants
from konko_async.relay._ui_message import UI_MESSAGE, UIMessageFormat

__all__ = [
    "ANSWER_FIELDS",
    "MESSAGE_FIELDS",
    "OPENAI",
    "PARAMS",
    "UI_MESSAGE",
    "AuthHook",
    "CallKeywords",
    "ChatCall",
    "CircuitHealth",
    "Delivery",
    "Dialect",
    "Drain",
    "Format",
    "Health",
    "HubSource",
    "MemoryStore",
    "ModelHealth",
    "OpenAIFormat",
    "Page",
    "PublicError",
    "ReaderGoneError",
    "RefusalError",
    "RelayOptions",
    "RelayReply",
    "RelayRequest",
    "RelayService",
    "RunFormat",
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
    "Tenants",
    "ToolRunSource",
    "UIMessageFormat",
    "Watched",
    "call_keywords",
    "check_store",
    "health",
    "public_error",
    "pump",
]
