"""``konko-async chat``: its options, and which of its two modes they mean."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from konko_async.cli._options import Connection, connection_options, model_option
from konko_async.cli._output import is_terminal

if TYPE_CHECKING:
    from konko_async.cli.chat.conversation import Conversation
    from konko_async.cli.settings.config_file import Config, SavedTemplate

_COMPARE = "--compare"


class _ModelsAfterCompare(click.Command):
    """Parses ``--compare A B C``, which click has no kind of option for."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Repeat the option for each model, as click expects."""
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
        # The first model has the option before it already.
        elif comparing and found[-1] != _COMPARE:
            found.append(_COMPARE)
        found.append(argument)
        comparing = comparing or argument == _COMPARE
    return found


@click.command("chat", cls=_ModelsAfterCompare)
@click.argument("prompt", required=False)
@model_option
@click.option("-s", "--system", metavar="TEXT", help="System message: how the model should behave.")
@click.option(
    "-t",
    "--temperature",
    type=click.FloatRange(0, 2),
    help="Sampling temperature; 0 always takes the likeliest token.",
)
@click.option("--max-tokens", type=click.IntRange(1), metavar="N", help="Maximum output tokens.")
@click.option(
    "--stop", multiple=True, metavar="TEXT", help="Text at which the answer ends; up to 4 times."
)
@click.option(
    "-f",
    "--attach",
    "attached",
    multiple=True,
    metavar="FILE|URL",
    help="Send a text, document or image along; repeatable. A file or an https address, of at "
    "most 20 MiB.",
)
@click.option(
    "-c",
    "--continue",
    "goes_on",
    is_flag=True,
    help="Continue the latest conversation, with its model.",
)
@click.option(
    "--conversation",
    "kept_id",
    metavar="ID",
    help="Continue this conversation; `konko-async log` lists them.",
)
@click.option(
    "--log/--no-log",
    "log",
    default=None,
    help="Keep the conversation or not.  [default: kept, unless `konko-async log off`]",
)
@click.option(
    "--template", "template_name", metavar="NAME", help="Use a template of the configuration."
)
@click.option(
    "-p",
    "--param",
    "values",
    multiple=True,
    metavar="NAME=TEXT",
    help="A value for a template's {name}; repeatable.",
)
@click.option(
    "--schema",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Request an answer in JSON that fits this JSON Schema.",
)
@click.option(
    _COMPARE,
    "compared",
    multiple=True,
    metavar="ID ID ...",
    help="Ask several models at once; a one-word prompt goes before this option, or after --.",
)
@click.option(
    "--json", "as_json", is_flag=True, help="Print the complete answer as one line of JSON."
)
@click.option(
    "--plain", is_flag=True, help="Print the text as it arrives, without rendering Markdown."
)
@click.option("--stats", is_flag=True, help="Print time, tokens and cost to standard error.")
@connection_options
def command(connection: Connection, prompt: str | None, **options: Any) -> int:
    """Ask a model, and print its answer as it arrives.

    PROMPT is the question. What is piped in follows it, as in `cat notes.md | konko-async chat
    "Summarise:"`; alone, or with "-" as the PROMPT, it is the question itself. Without any of
    these, on a terminal, a conversation begins: Ctrl-C stops an answer, Ctrl-D ends it.

    Conversations are kept in a file that only you can read, so that --continue works and
    `konko-async log` can show them. --no-log keeps none of this one, `konko-async log off` none
    from now on.
    """
    from konko_async.cli._runner import run  # noqa: PLC0415 - keeps --help fast
    from konko_async.cli.chat.one_shot import ask  # noqa: PLC0415 - keeps --help fast
    from konko_async.cli.chat.question import filled, question  # noqa: PLC0415 - keeps --help fast
    from konko_async.cli.log.keeper import Keeper, is_kept  # noqa: PLC0415 - keeps --help fast
    from konko_async.cli.log.store import ConversationStore  # noqa: PLC0415 - keeps --help fast
    from konko_async.cli.settings.config_file import load_config  # noqa: PLC0415 - keeps --help fast

    config = load_config()
    template = _template(config, options.pop("template_name"))
    values = _values(options.pop("values"), template)
    models, conversation, schema = _prepared(connection, config, template, options)
    kept = is_kept(option=options["log"], config=config.log)
    shared = {
        "keeper": Keeper(ConversationStore() if kept else None),
        "attached": options["attached"],
        "plain": options["plain"],
        "stats": options["stats"],
    }
    # Only with somebody there to type and to read; otherwise standard input is the prompt.
    alone = prompt is None and is_terminal(sys.stdin) and is_terminal(sys.stdout)
    alone = alone and schema is None and not options["as_json"]
    asked = None if alone else question(prompt)
    if template is not None and not (alone and _needs_input(template)):
        asked = filled(template, asked, values)
        alone = False
    if alone:
        if values:
            raise click.UsageError("the template needs a prompt, or text from a pipe")
        from konko_async.cli.chat.interactive import converse  # noqa: PLC0415 - prompt_toolkit

        talk = converse(connection, models, conversation, **shared)
        return run(talk, debug=connection.debug)
    if not asked or not asked.strip():
        raise click.UsageError("the prompt is empty")
    asking = ask(
        connection, models, conversation, asked, as_json=options["as_json"], schema=schema, **shared
    )
    return run(asking, debug=connection.debug)


def _template(config: Config, name: str | None) -> SavedTemplate | None:
    return None if name is None else config.template(name)


def _needs_input(template: SavedTemplate) -> bool:
    return template.prompt is None or "{input}" in template.prompt


def _values(given: tuple[str, ...], template: SavedTemplate | None) -> dict[str, str]:
    """Return what --param gave, by name."""
    if given and template is None:
        raise click.UsageError("--param is for a --template")
    values = {}
    for one in given:
        name, equals, text = one.partition("=")
        if not equals:
            raise click.UsageError(f"--param {one}: write NAME=TEXT")
        values[name] = text
    return values


def _prepared(
    connection: Connection, config: Config, template: SavedTemplate | None, options: dict[str, Any]
) -> tuple[list[str], Conversation, dict[str, Any] | None]:
    """Return the models, the conversation to begin with, and the schema of the answer.

    An option goes before the template, and that before a conversation that is continued.
    """
    from konko_async.cli.chat.conversation import Conversation  # noqa: PLC0415 - keeps --help fast
    from konko_async.cli.chat.question import read_schema, response_format  # noqa: PLC0415 - keeps --help fast

    conversation, model = _continued(options) or (Conversation(None, {}), None)
    if connection.local:
        model = None  # that of the conversation was another server's
    if template is not None and template.model:
        model = config.resolve(template.model)
    models = _models(options["model"] or model, options["compared"], config.model)
    conversation.system = options["system"] or (template and template.system) or conversation.system
    path = options["schema"]
    if path is None and template is not None and template.schema:
        path = _beside_config(template.schema)
    schema = None if path is None else read_schema(path)
    for name in ("temperature", "max_tokens"):
        value = options[name]
        if value is None and template is not None:
            value = getattr(template, name)
        if value is not None:
            conversation.parameters[name] = value
    if options["stop"]:
        conversation.parameters["stop"] = list(options["stop"])
    if schema is not None:
        conversation.parameters["response_format"] = response_format(schema)
    return models, conversation, schema


def _beside_config(path: str) -> Path:
    from konko_async.cli.settings.config_file import config_path  # noqa: PLC0415 - keeps --help fast

    return config_path().parent / Path(path).expanduser()


def _continued(options: dict[str, Any]) -> tuple[Conversation, str] | None:
    """Return the conversation to continue and its model, if one is to be continued."""
    if not options["goes_on"] and options["kept_id"] is None:
        return None
    from konko_async.cli.log.store import ConversationStore, LogError  # noqa: PLC0415 - keeps --help fast

    try:
        return ConversationStore().read(options["kept_id"])
    except LogError as error:
        raise click.UsageError(f"nothing to continue: {error}") from None


def _models(model: str | None, compared: tuple[str, ...], default: str | None = None) -> list[str]:
    """Return the models to ask; a single --compare goes with --model or the default one."""
    if len(compared) == 1:
        other = model or os.environ.get("KONKO_MODEL") or default
        if not other:
            raise click.UsageError(
                "--compare needs two models or more, or one in addition to --model"
            )
        return [other, *compared]
    if compared:
        return [*([model] if model else []), *compared]
    return [model] if model else []
