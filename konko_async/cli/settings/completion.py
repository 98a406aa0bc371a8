"""``konko-async completion``: commands and options by the Tab key."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import click
from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

_PROGRAM: Final = "konko-async"
_VARIABLE: Final = "_KONKO_ASYNC_COMPLETE"  # click looks at it before anything else
_CLASSES: Final[dict[str, type[ShellComplete]]] = {
    "bash": BashComplete,
    "zsh": ZshComplete,
    "fish": FishComplete,
}
_ZSH: Final = "zsh reads it if ~/.zshrc has, above compinit: fpath=(~/.zfunc $fpath)"
_HOW: Final = {
    "bash": "new shells have it, if the package bash-completion is installed",
    "zsh": f"new shells have it; {_ZSH}",
    "fish": "new shells have it",
}


@click.command("completion")
@click.argument("shell", type=click.Choice(list(_CLASSES)), required=False)
@click.option("--install", is_flag=True, help="Write it where the shell looks for it.")
def command(shell: str | None, *, install: bool) -> int:
    """Print the shell's completion script, or install it.

    SHELL is bash, zsh or fish; by default that of $SHELL. `konko-async completion --install`
    writes ~/.local/share/bash-completion/completions/konko-async, ~/.zfunc/_konko-async or
    ~/.config/fish/completions/konko-async.fish, and changes no other file.
    """
    from konko_async.cli._output import note  # noqa: PLC0415 - keeps --help fast

    name = shell or Path(os.environ.get("SHELL", "")).name
    if name not in _CLASSES:
        raise click.UsageError(f"say which shell: {', '.join(_CLASSES)}")
    script = _script(name)
    if not install:
        click.echo(script)
        return 0
    path = _path(name)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{script}\n", encoding="utf-8")
    except OSError as error:
        raise click.UsageError(f"{path}: {error.strerror}") from None
    note(f"written: {path}; {_HOW[name]}")
    return 0


def _script(shell: str) -> str:
    made = _CLASSES[shell](click.Command(_PROGRAM), {}, _PROGRAM, _VARIABLE)
    # Not source(): for bash that runs bash to look at its version, which need not be the user's.
    return (made.source_template % made.source_vars()).strip()


def _path(shell: str) -> Path:
    home = Path.home()
    data = Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    config = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    return {
        "bash": data / "bash-completion" / "completions" / _PROGRAM,
        "zsh": home / ".zfunc" / f"_{_PROGRAM}",
        "fish": config / "fish" / "completions" / f"{_PROGRAM}.fish",
    }[shell]
