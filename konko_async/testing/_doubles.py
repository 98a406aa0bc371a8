"""Other people's doubles of aiohttp, made to fit the aiohttp that is installed."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from types import SimpleNamespace
from typing import Any

import aiohttp

__all__ = ["aioresponses_for_today"]


class _Response(aiohttp.ClientResponse):
    """A response that was never on the wire, whatever arguments this aiohttp requires."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        if "stream_writer" in inspect.signature(aiohttp.ClientResponse.__init__).parameters:
            kwargs.setdefault("stream_writer", SimpleNamespace(output_size=0))
        super().__init__(*args, **kwargs)


@contextmanager
def aioresponses_for_today() -> Iterator[Any]:
    """Patch aiohttp's client as `aioresponses()` does, with responses that can be made.

    Raises:
        ModuleNotFoundError: aioresponses is not installed.
    """
    core: Any = import_module("aioresponses.core")
    before = core.ClientResponse
    core.ClientResponse = _Response  # what it makes where a test names no class
    try:
        with core.aioresponses() as mocked:
            yield mocked
    finally:
        core.ClientResponse = before
