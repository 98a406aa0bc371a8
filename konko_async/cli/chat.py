"""``konko-async chat``."""

from __future__ import annotations

import sys
from typing import Any

import click

from konko_async.cli._options import Connection, connection_options, model_option
from konko_async.cli._output import is_terminal


@click.command("chat")
@click.argument("prompt", required=False)
@model_option
@click.option("-s", "--system", metavar="TEXT", help="The system message: what the model is to be.")
@click.option(
    "-t", "--temperature", type=click.FloatRange(0, 2), help="0: always the likeliest word."
)
@click.option("--max-tokens", type=click.IntRange(1), metavar="N", help="The longest answer.")
@click.option("--stop", multiple=True, metavar="TEXT", help="Ends the answer; up to 4 times.")
@click.option("--json", "as_json", is_flag=True, help="The whole answer as one line of JSON.")
@connection_options
def command(
    connection: Connection,
    prompt: str | None,
    model: str | None,
    system: str | None,
    *,
    as_json: bool,
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

    conversation = Conversation(system, _parameters(sampling))
    if prompt is None and not as_json and is_terminal(sys.stdin) and is_terminal(sys.stdout):
        from konko_async.cli._interactive import converse  # noqa: PLC0415 - prompt_toolkit

        return run(converse(connection, model, conversation), debug=connection.debug)
    question = _question(prompt)
    conversation.ask(question)
    return run(ask(connection, model, conversation, as_json=as_json), debug=connection.debug)


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
