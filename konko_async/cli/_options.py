"""The options that commands share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import click

__all__ = ["Connection", "connection_options", "model_option"]


@dataclass(frozen=True, slots=True)
class Connection:
    """Which server is asked, and how patiently.

    Attributes:
        base_url: of the API; None: the environment's, or Konko's own.
        local: whether to start the local model and ask that.
        timeout: seconds for a whole call; None: no such limit.
        allow_http: whether plain http may leave this machine.
        debug: whether errors come with their traceback.
    """

    base_url: str | None = None
    local: bool = False
    timeout: float | None = None
    allow_http: bool = False
    debug: bool = False


_SECONDS = click.FloatRange(min=0, min_open=True)
_OPTIONS = (
    click.option("--base-url", metavar="URL", help="The API's address, such as https://host/v1."),
    click.option("--local", is_flag=True, help="Start the real local model, and ask that."),
    click.option("--timeout", type=_SECONDS, metavar="S", help="Seconds for a whole call."),
    click.option("--allow-http", is_flag=True, help="Let plain http leave this machine."),
    click.option("--debug", is_flag=True, help="Show the traceback of an error."),
)

model_option = click.option(
    "-m", "--model", metavar="ID", help="The model's id; default: $KONKO_MODEL."
)


def connection_options(function: Callable[..., int]) -> Callable[..., int]:
    """Give a command the options of a :class:`Connection`, as its argument ``connection``."""

    @functools.wraps(function)
    def collect(**values: Any) -> int:
        fields = {name: values.pop(name) for name in Connection.__dataclass_fields__}
        connection = Connection(**fields)
        if connection.local and connection.base_url is not None:
            raise click.UsageError("--local and --base-url name two servers; give one of them")
        return function(connection=connection, **values)

    decorated: Callable[..., int] = collect
    for option in reversed(_OPTIONS):
        decorated = option(decorated)
    return decorated
