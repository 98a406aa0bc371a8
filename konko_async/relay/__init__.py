"""A streamed answer to browsers: as server-sent events, safely, and resumable.

Adapters: :mod:`konko_async.relay.aiohttp_web`, and :mod:`konko_async.relay.starlette_app` (extra
``starlette``). This module needs neither.
"""

from konko_async.relay._errors import (
    PublicError,
    RefusalError,
    StoreFullError,
    StoreUnavailableError,
    StreamLostError,
    StreamTooLongError,
    public_error,
)
from konko_async.relay._formats.ag_ui import AG_UI, AGUIFormat
from konko_async.relay._formats.base import (
    ChatCall,
    Dialect,
    Format,
    RunFormat,
    StopReason,
    StreamStats,
)
from konko_async.relay._formats.openai import ANSWER_FIELDS, OpenAIFormat
from konko_async.relay._formats.ui_message import UI_MESSAGE, UIMessageFormat
from konko_async.relay._health import CircuitHealth, Health, ModelHealth, health
from konko_async.relay._http import RelayReply, RelayRequest
from konko_async.relay._lifecycle.drain import Drain
from konko_async.relay._page_options import PageOptions
from konko_async.relay._policy import CORS_HEADERS, MESSAGE_FIELDS, OPENAI, PARAMS, RelayOptions
from konko_async.relay._request_headers import CallKeywords, call_keywords
from konko_async.relay._service import AuthHook, RelayService
from konko_async.relay._stores.base import Page, StreamInfo, StreamStore, Watched
from konko_async.relay._stores.contract import check_store
from konko_async.relay._stores.memory import MemoryStore
from konko_async.relay._streams.hub import HubSource, StreamHub
from konko_async.relay._streams.pump import Delivery, ReaderGoneError, Sink, pump
from konko_async.relay._streams.source import Source, StreamSource
from konko_async.relay._streams.tool_run_source import ToolRunSource
from konko_async.relay._tenants import TenantRecord, Tenants

__all__ = [
    "AG_UI",
    "ANSWER_FIELDS",
    "CORS_HEADERS",
    "MESSAGE_FIELDS",
    "OPENAI",
    "PARAMS",
    "UI_MESSAGE",
    "AGUIFormat",
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
    "PageOptions",
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
    "StoreUnavailableError",
    "StreamHub",
    "StreamInfo",
    "StreamLostError",
    "StreamSource",
    "StreamStats",
    "StreamStore",
    "StreamTooLongError",
    "TenantRecord",
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
