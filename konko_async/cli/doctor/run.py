"""Looks at everything in order, prints it as it is found, and sums it up."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import asdict, replace
from typing import Final

import click

from konko_async import AsyncKonko, KonkoError
from konko_async.cli._connect import connect
from konko_async.cli._number_format import plural
from konko_async.cli._options import Connection
from konko_async.cli._output import clean, error_line, is_live, json_text, redact
from konko_async.cli.doctor.calls import check_call, check_limits, check_models
from konko_async.cli.doctor.environment import (
    check_fast_path,
    check_key,
    check_proxies,
    check_url,
    check_versions,
)
from konko_async.cli.doctor.finding import Finding, failed, skipped, warned
from konko_async.cli.doctor.network import check_network
from konko_async.cli.doctor.stream import check_stream
from konko_async.local import LocalServer

__all__ = ["examine", "run_doctor"]

_SECONDS: Final = 30.0  # for each call
_FAILED: Final = 1
_WIDTH: Final = 17
_COLOURS: Final = {"ok": "32", "warning": "33", "error": "31", "skipped": "2"}
_MARKS: Final = {"ok": "ok", "warning": "warning", "error": "ERROR", "skipped": "-"}
_LATER: Final = ("models", "call", "stream", "limits")


async def run_doctor(connection: Connection, model: str | None, *, as_json: bool) -> int:
    """Print the findings.

    Args:
        connection: which server, and how long a call may take.
        model: for the calls; None: that of the environment, else the first that is listed.
        as_json: print one JSON document.

    Returns:
        The exit code: 1 if there is an error.
    """
    found = []
    async for finding in examine(connection, model):
        found.append(finding)
        if not as_json:
            _print(finding)
    errors = [finding for finding in found if finding.status == "error"]
    warnings = [finding for finding in found if finding.status == "warning"]
    if as_json:
        document = {"ok": not errors, "findings": [asdict(finding) for finding in found]}
        click.echo(redact(json_text(document, indent=2)))
    elif errors:
        # The first: what follows from it fails, too.
        click.echo(f"\nCalls do not work: {redact(clean(errors[0].found))}")
        click.echo(f"What to do: {errors[0].advice}")
    elif warnings:
        click.echo(f"\nCalls work, with {plural(len(warnings), 'warning')}.")
    else:
        click.echo("\nAll is well.")
    return _FAILED if errors else 0


def _print(finding: Finding) -> None:
    mark = _MARKS[finding.status].ljust(8)
    if is_live(sys.stdout) and not os.environ.get("NO_COLOR"):
        mark = f"\x1b[{_COLOURS[finding.status]}m{mark}\x1b[0m"
    click.echo(f"{mark}{finding.check.ljust(_WIDTH)}{redact(clean(finding.found))}")
    if finding.advice:
        click.echo(f"{' ' * (8 + _WIDTH)}-> {redact(clean(finding.advice))}")
    sys.stdout.flush()


async def examine(connection: Connection, model: str | None = None) -> AsyncIterator[Finding]:
    """Look at one thing after the other, from this machine to the server's streams."""
    yield check_versions()
    key = check_key(local=connection.local)
    yield key
    url, base_url = check_url(
        connection.base_url, local=connection.local, allow_http=connection.allow_http
    )
    yield url
    if os.environ.get("KONKO_ENDPOINTS") and not connection.base_url and not connection.local:
        found = "KONKO_ENDPOINTS names several servers, and this looks at one"
        yield warned("endpoints", found, "give the address of each as --base-url")
    # So that connect() opens what is looked at here, and not the endpoints of the environment.
    connection = replace(connection, base_url=base_url)
    yield check_proxies()
    if not connection.local:
        if base_url is None:
            for name in ("dns", "tcp", "tls", *_LATER):
                yield skipped(name, "there is no address")
            return
        reached = True
        async for finding in check_network(base_url):
            reached = reached and finding.status != "error"
            yield finding
        if not reached or key.status == "error":
            for name in _LATER:
                why = "the server is not reached" if not reached else "there is no usable key"
                yield skipped(name, why)
            return
    seconds = connection.timeout or _SECONDS
    async with AsyncExitStack() as stack:
        try:
            client, secret, known = await _opened(stack, connection, model)
        except KonkoError as error:
            yield failed("client", error_line(error), "correct what it says")
            return
        async for finding in _examine_calls(client, secret, known, seconds):
            yield finding


async def _opened(
    stack: AsyncExitStack, connection: Connection, model: str | None
) -> tuple[AsyncKonko, str, str | None]:
    """Return the client, its key, and the model that is chosen."""
    if connection.local:
        server = await stack.enter_async_context(LocalServer())
        local = await stack.enter_async_context(AsyncKonko(server.api_key, server.base_url))
        return local, server.api_key, server.model
    client, known = await stack.enter_async_context(connect(connection, model))
    return client, os.environ.get("KONKO_API_KEY", "").strip(), known


async def _examine_calls(
    client: AsyncKonko, key: str, model: str | None, seconds: float
) -> AsyncIterator[Finding]:
    yield check_fast_path(client)
    # Without retries: what fails once is what is looked for.
    once = client.with_options(timeout=seconds, retry=None)
    found, chosen = await check_models(once, model)
    yield found
    if chosen is None:
        for name in _LATER[1:]:
            yield skipped(name, "no model is known")
        return
    found, headers = await check_call(once, chosen)
    yield found
    if found.status == "error":
        yield skipped("stream", "a small call fails already")
    else:
        for finding in await check_stream(client.base_url, key, chosen, seconds=seconds):
            yield finding
    yield check_limits(headers)
