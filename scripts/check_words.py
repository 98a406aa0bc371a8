"""Reads the documentation, --help and public docstrings for words that we do not use.

proselint does the reading, with some of its own checks and our word list (scripts/words.toml).
Prints each find as FILE:LINE:COLUMN, and exits with 1 if there is any.
"""

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
from proselint.checks import __register__ as proselints_checks
from proselint.registry import CheckRegistry
from proselint.registry.checks import Check, types
from proselint.tools import LintFile

from konko_async.cli._program import root as program

ROOT = Path(__file__).parents[1]
WORDS = tomllib.loads((ROOT / "scripts" / "words.toml").read_text(encoding="utf-8"))
DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
# Code is not prose: blanked, so that lines and columns stay as they are.
CODE = re.compile(r"^```.*?^```|``.+?``|`[^`\n]+`|\]\([^)]*\)|<!--.*?-->", re.MULTILINE | re.DOTALL)


def prose(text: str) -> str:
    """Blank what is code or a link's address."""
    return CODE.sub(lambda code: re.sub(r"[^\n]", "0", code[0]), text)


def pages() -> Iterator[tuple[str, str]]:
    """Read the Markdown pages of the repository."""
    for path in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")]):
        yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")


def help_texts() -> Iterator[tuple[str, str]]:
    """Read what each command prints for --help."""
    context = click.Context(program, info_name="konko-async", max_content_width=400)
    yield "konko-async --help", program.get_help(context)
    for name in program.list_commands(context):
        command = program.get_command(context, name)
        inner = click.Context(command, info_name=name, parent=context, max_content_width=400)
        yield f"konko-async {name} --help", command.get_help(inner)


def docstrings() -> Iterator[tuple[str, str]]:
    """Read the docstrings of the package's public modules, classes and functions."""
    for path in sorted((ROOT / "konko_async").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(
                node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
            ):
                continue
            text = ast.get_docstring(node)
            name = getattr(node, "name", "")
            if text and not name.startswith("_"):
                yield f"{path.relative_to(ROOT)} ({name or 'module'})", text


def our_checks() -> tuple[Check, ...]:
    """Make proselint's kind of check of our list."""
    items = {word.replace(" ", r"\s+"): instead for word, instead in WORDS["instead"].items()}
    check = types.PreferredForms(items=items)
    return (Check(check_type=check, path="ours.words", message="write '{0}' instead of '{1}'"),)


def main() -> int:
    """Check everything."""
    registry = CheckRegistry()
    registry.register_many((*our_checks(), *proselints_checks))
    config = {"max_errors": 10_000, "checks": {**WORDS["proselint"], "ours": True}}
    found = 0
    for where in (pages, help_texts, docstrings):
        for name, text in where():
            for result in LintFile(name, prose(text)).lint(config):
                line, column = result.pos
                message = " ".join(result.check_result.message.split())
                print(f"{name}:{line}:{column}: {message}")
                found += 1
    return int(found > 0)


if __name__ == "__main__":
    sys.exit(main())
