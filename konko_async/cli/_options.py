"""The options that commands share."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import click

__all__ = ["Connection", "connection_options", "decorated", "model_option"]


@dataclass(frozen=True, slots=True)
class Connection:
    """The server that a command talks to, and its time limit.

    Attributes:
        base_url: address of the API; None: from the environment, else Konko's.
        local: whether to start the local model and use it.
        timeout: seconds for a whole call with its retries; None: no limit.
        allow_http: whether plain http may leave this machine.
        debug: whether errors come with their traceback.
        endpoint: addresses of several servers that share the calls.
        endpoints: path of a TOML file that names them.
    """

    base_url: str | None = None
    local: bool = False
    timeout: float | None = None
    allow_http: bool = False
    debug: bool = False
    endpoint: tuple[str, ...] = ()
    endpoints: str | None = None


_SECONDS = click.FloatRange(min=0, min_open=True)
_OPTIONS = (
    click.option("--base-url", metavar="URL", help="Address of the API, such as https://host/v1."),
    click.option(
        "--endpoint",
        metavar="URL",
        multiple=True,
        help="Address of one of several servers that share the calls; repeat it for each.",
    ),
    click.option(
        "--endpoints",
        metavar="FILE",
        help="TOML file of endpoints with keys, models and limits.  [default: $KONKO_ENDPOINTS]",
    ),
    click.option("--local", is_flag=True, help="Start the local model and use it."),
    click.option(
        "--timeout",
        type=_SECONDS,
        metavar="S",
        help="Time limit of a call in seconds, retries included.",
    ),
    click.option("--allow-http", is_flag=True, help="Allow plain http to other machines."),
    click.option("--debug", is_flag=True, help="Show the traceback of an error."),
)

model_option = click.option(
    "-m", "--model", metavar="ID", help="Id or alias of the model.  [default: $KONKO_MODEL]"
)


# The options of commands that name models.
_MODEL_OPTIONS = ("model", "models", "compared")


def _resolve_aliases(values: dict[str, Any]) -> None:
    """Put the models in the place of the configuration's aliases."""
    from konko_async.cli.settings.config_file import load_config  # noqa: PLC0415 - keeps --help fast

    config = load_config()
    for name in _MODEL_OPTIONS:
        given = values.get(name)
        if isinstance(given, str):
            values[name] = config.resolve(given)
        elif given:
            values[name] = tuple(map(config.resolve, given))


def _check_local_models(values: dict[str, Any]) -> None:
    """Refuse models that the local server does not have: it would answer under any name."""
    from konko_async.local import LocalServer  # noqa: PLC0415 - keeps --help fast

    only = LocalServer().model
    for name in _MODEL_OPTIONS:
        given = values.get(name) or ()
        for model in (given,) if isinstance(given, str) else given:
            if model != only:
                raise click.UsageError(
                    f"--local serves {only} and no {model}: leave the model out, or --local"
                )


def _without_api(fields: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """Take out of ``--endpoint`` what names an API: `batch` had an option of that name for it."""
    urls = tuple(given for given in fields["endpoint"] if "://" in given)
    for given in fields["endpoint"]:
        if given not in urls:
            if "api" not in values:
                raise click.UsageError(f"--endpoint takes addresses, and {given!r} is none")
            values["api"] = given
    return {**fields, "endpoint": urls}


def connection_options(function: Callable[..., int]) -> Callable[..., int]:
    """Give a command the options of a :class:`Connection`, as its argument ``connection``."""

    @functools.wraps(function)
    def collect(**values: Any) -> int:
        fields = {name: values.pop(name) for name in Connection.__dataclass_fields__}
        connection = Connection(**_without_api(fields, values))
        _resolve_aliases(values)
        named = {
            "--local": connection.local,
            "--base-url": connection.base_url is not None,
            "--endpoint": bool(connection.endpoint),
            "--endpoints": connection.endpoints is not None,
        }
        both = [name for name, given in named.items() if given]
        if len(both) > 1:
            raise click.UsageError(
                f"{both[0]} and {both[1]} name two servers; give one of them"
                if both[0] != "--endpoint"
                else "--endpoint and --endpoints both name servers; give one of them"
            )
        if connection.local:
            _check_local_models(values)
        return function(connection=connection, **values)

    return decorated(collect, _OPTIONS)


def decorated(function: Callable[..., Any], options: Sequence[Any]) -> Callable[..., Any]:
    """Return a command with these options, which ``--help`` lists in this order."""
    for option in reversed(options):  # decorators apply from the last to the first
        function = option(function)
    return function
