"""A real small model on this machine, behind llama.cpp's own server (extra ``local``)."""

from konko_async.local._prompts import SUMMARY_OPTIONS, summary_messages
from konko_async.local._server import LocalServer, LocalServerError, available

__all__ = ["SUMMARY_OPTIONS", "LocalServer", "LocalServerError", "available", "summary_messages"]
