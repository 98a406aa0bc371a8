"""``konko-async chat``."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from konko_async.cli._options import Connection, connection_options, model_option
from konko_async.cli._output import is_terminal

_COMPARE = "--compare"


class _Chat(click.Command):
    """Takes all the models that follow ``--compare``."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Give each of these models an option of its own, as click wants it."""
        return super().parse_args(ctx, _spread(args))


def _spread(arguments: Sequence[str]) -> list[str]:
    """Write ``--compare A B`` as ``--compare A --compare B``.

    The models end at an option, at ``--``, and at a word with white space in it, which can only be
    the prompt.
    """
    found: list[str] = []
    comparing = False
    for place, argument in enumerate(arguments):
        if argument == "--":
            return [*found, *arguments[place:]]
        if argument.startswith("-") or not argument or any(map(str.isspace, argument)):
            comparing = False
        elif comparing and found[-1] != _COMPARE:
            found.append(_COMPARE)
        found.append(argument)
        comparing = comparing or argument == _COMPARE
    return found


@click.command("chat", cls=_Chat)
@click.argument("prompt", required=False)
@model_option
@click.option("-s", "--system", metavar="TEXT", help="The system message: what the model is to be.")
@click.option(
    "-t", "--temperature", type=click.FloatRange(0, 2), help="0: always the likeliest word."
)
@click.option("--max-tokens", type=click.IntRange(1), metavar="N", help="The longest answer.")
@click.option("--stop", multiple=True, metavar="TEXT", help="Ends the answer; up to 4 times.")
@click.option(
    _COMPARE,
    "compared",
    multiple=True,
    metavar="ID ID ...",
    help="Ask these models at the same time; a prompt of one word goes before, or after --.",
)
@click.option("--json", "as_json", is_flag=True, help="The whole answer as one line of JSON.")
@click.option("--plain", is_flag=True, help="The text as it comes, not as Markdown.")
@click.option("--stats", is_flag=True, help="Time, tokens and cost, on standard error.")
@connection_options
def command(
    connection: Connection,
    prompt: str | None,
    model: str | None,
    system: str | None,
    compared: tuple[str, ...],
    *,
    as_json: bool,
    plain: bool,
    stats: bool,
    **sampling: Any,
) -> int:
    """Ask a model, and print its answer as it comes.

    PROMPT is the question; "-", or a pipe, takes it from standard input. On a terminal without a
    PROMPT, a conversation begins: Ctrl-C stops an answer, Ctrl-D ends the conversation.
    """
    # aiohttp takes its time to import: --help does without it.
    from konko_async.cli._conversation import Conversation  # noqa: PLC0415 - see above
    from konko_async.cli._one_shot import ask  # noqa: PLC0415 - see above
    from konko_async.cli._run import run  # noqa: PLC0415 - see above

    models = _models(model, compared)
    conversation = Conversation(system, _parameters(sampling))
    if prompt is None and not as_json and is_terminal(sys.stdin) and is_terminal(sys.stdout):
        from konko_async.cli._interactive import converse  # noqa: PLC0415 - prompt_toolkit

        talk = converse(connection, models, conversation, plain=plain, stats=stats)
        return run(talk, debug=connection.debug)
    conversation.ask(_question(prompt))
    asking = ask(connection, models, conversation, as_json=as_json, plain=plain, stats=stats)
    return run(asking, debug=connection.debug)


def _models(model: str | None, compared: tuple[str, ...]) -> list[str]:
    """Return the models that are named; one to compare with is compared with the chat's own."""
    if len(compared) == 1:
        other = model or os.environ.get("KONKO_MODEL")
        if not other:
            raise click.UsageError("--compare takes two models or more, or one besides --model")
        return [other, *compared]
    if compared:
        return [*([model] if model else []), *compared]
    return [model] if model else []


def _parameters(sampling: dict[str, Any]) -> dict[str, Any]:
    """Return the API's parameters that were given."""
    parameters = {name: value for name, value in sampling.items() if value is not None}
    if stop := parameters.pop("stop"):
        parameters["stop"] = list(stop)
    return parameters


def _question(prompt: str | None) -> str:
    """Return the prompt, from the argument or from standard input."""
    try:
        if prompt is None or prompt == "-":
            # Strictly: Python lets bytes that are no text pass as lone surrogates.
            text = sys.stdin.buffer.read().decode(sys.stdin.encoding).removeprefix("\ufeff")
        else:
            text = prompt
            text.encode()
    except (UnicodeDecodeError, UnicodeEncodeError) as error:
        raise click.UsageError(f"the prompt is not {error.encoding} text") from None
    if not text.strip():
        raise click.UsageError("the prompt is empty")
    return text
