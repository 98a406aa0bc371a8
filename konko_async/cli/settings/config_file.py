"""The configuration file: a default model, aliases and templates, in TOML."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import click
import msgspec

from konko_async.cli._state import config_folder, private_folder, replace_file

__all__ = ["EXAMPLE", "Config", "SavedTemplate", "config_path", "load_config", "write_log_setting"]

_NAME = "config.toml"
_LARGEST = 1024 * 1024  # bytes: a wrong path must not fill the memory
_LOG = re.compile(r"^[ \t]*log[ \t]*=.*$", re.MULTILINE)
_TABLE = re.compile(r"^[ \t]*\[", re.MULTILINE)

EXAMPLE = """\
# The configuration of konko-async. `konko-async config` shows how it is understood.

# The model of every command; --model and $KONKO_MODEL go before it.
# model = "llama"

# Whether `konko-async chat` keeps conversations, for --continue and `konko-async log`.
log = true

# Short names for --model, --compare and /model.
[aliases]
# llama = "meta-llama/llama-2-13b-chat"

# For `konko-async chat --template NAME`. {input} is the prompt with what is piped in; any other
# {name} is given with --param name=value. Write {{name}} where braces are meant.
# [templates.brief]
# system = "Answer in one sentence."
# prompt = "Explain {input} to {reader}."
# model = "llama"
# temperature = 0
# max_tokens = 100
# schema = "answer.json"
"""


class SavedTemplate(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A question with placeholders, to be used again and again.

    Attributes:
        prompt: with ``{input}`` and other placeholders; None: the input alone.
        system: the system message.
        model: the model, or an alias.
        temperature: of the sampling.
        max_tokens: most tokens of the answer.
        schema: path of a JSON Schema, relative to the configuration file.
    """

    prompt: str | None = None
    system: str | None = None
    model: str | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    schema: str | None = None


class Config(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What the configuration file says.

    Attributes:
        model: the model of every command; None: none is set.
        log: whether conversations are kept.
        aliases: short names of models.
        templates: by name.
    """

    model: str | None = None
    log: bool = True
    aliases: dict[str, str] = {}
    templates: dict[str, SavedTemplate] = {}

    def resolve(self, model: str) -> str:
        """Return the model that an alias stands for; any other name as it is."""
        return self.aliases.get(model, model)

    def template(self, name: str) -> SavedTemplate:
        """Return a template.

        Raises:
            click.UsageError: there is none of this name.
        """
        if name in self.templates:
            return self.templates[name]
        known = ", ".join(sorted(self.templates)) or "none"
        raise click.UsageError(
            f"there is no template {name!r} in {config_path()}; there are: {known}"
        )


def config_path() -> Path:
    """Return where the configuration file is, or would be."""
    return config_folder() / _NAME


def load_config() -> Config:
    """Read the configuration file; without one, everything has its default.

    Raises:
        click.UsageError: it cannot be read, or says something that has no meaning.
    """
    path = config_path()
    try:
        if path.stat().st_size > _LARGEST:
            raise click.UsageError(f"{path} is larger than {_LARGEST} bytes")
        text = path.read_text("utf-8")
    except FileNotFoundError:
        return Config()
    except UnicodeDecodeError:
        raise click.UsageError(f"{path} is not UTF-8 text") from None
    except OSError as error:
        raise click.UsageError(f"{path}: {error.strerror}") from None
    return _parsed(text, path)


def _parsed(text: str, path: Path) -> Config:
    try:
        found: dict[str, Any] = tomllib.loads(text)
        return msgspec.convert(found, Config)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise click.UsageError(f"{path}: {error}") from None


def write_log_setting(*, keep: bool) -> Path:
    """Write into the configuration file whether conversations are kept; the rest stays as it is.

    Returns:
        The file.

    Raises:
        click.UsageError: it cannot be understood or written.
    """
    path = config_path()
    load_config()
    line = f"log = {'true' if keep else 'false'}"
    try:
        text = path.read_text("utf-8") if path.exists() else EXAMPLE
        # Only what stands above the first table is a setting of the file itself.
        first = _TABLE.search(text)
        head, rest = (text[: first.start()], text[first.start() :]) if first else (text, "")
        head = _LOG.sub(line, head, count=1) if _LOG.search(head) else f"{line}\n{head}"
        changed = head + rest
        if _parsed(changed, path).log is not keep:
            raise click.UsageError(f"set it by hand, please: {line} in {path}")
        private_folder(path.parent)
        mode = path.stat().st_mode & 0o777 if path.exists() else 0o600
        # Resolved, so that a link, to dotfiles say, stays one.
        replace_file(path.resolve(), changed.encode(), mode=mode)
    except OSError as error:
        raise click.UsageError(f"{path}: {error.strerror}") from None
    return path
