"""konko 0.5.0: its AsyncKonko, which is openai's client of its day (< 2, on httpx)."""

from __future__ import annotations

import konko
from openai import DefaultAsyncHttpxClient

from benchmarks.rivals.openai_sdk import FREE, Client


def make(base_url: str, _mode: str) -> Client:
    http = DefaultAsyncHttpxClient(limits=FREE)
    return Client(konko.AsyncKonko(api_key="key", base_url=base_url, http_client=http))
