"""Hooks of mkdocs: pages made from the code, and links that also work on a code host.

Pages below docs/ link to files outside it (``../../examples/demo.py``), so that they can be read in
the repository; on the site those links lead to the repository. CHANGELOG.md, CONTRIBUTING.md and
SECURITY.md become pages of the site. Each public module gets a page of its public names.
"""

import ast
import html
import posixpath
import re
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path

import click
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from konko_async.cli._program import root as program

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"(?<=\]\()([^)#\s]+)(?=[)#])")
ROOT_PAGES = {
    "CHANGELOG.md": "project/changelog.md",
    "CONTRIBUTING.md": "project/contributing.md",
    "SECURITY.md": "project/security.md",
}
# Public by name, but not for import by users: the command line's own parts.
NOT_PUBLIC = ("konko_async.cli", "konko_async.__main__")
API = "reference/api"
CLI = "reference/cli.md"
CLI_HEAD = """# Command line options

Made from the program itself: what `konko-async COMMAND --help` prints. For a tour with
examples, see [the command line](../how-to/cli.md).
"""


def exported(path: Path) -> list[str]:
    """Read the names in a module's ``__all__``, without importing it."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        target = node.targets[0] if isinstance(node, ast.Assign) else None
        if isinstance(target, ast.Name) and target.id == "__all__":
            return list(ast.literal_eval(node.value))
    return []


@cache
def public_modules() -> dict[str, list[str]]:
    """Find the public modules of the package: the name of each, and its public names."""
    found = {}
    for path in sorted((ROOT / "konko_async").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        if parts[-1] == "__init__":
            parts = parts[:-1]
        name = ".".join(parts)
        if any(part.startswith("_") for part in parts) or name.startswith(NOT_PUBLIC):
            continue
        names = exported(path)
        if names:
            found[name] = names
    return found


def api_page(module: str, names: list[str]) -> str:
    """Write the page of a module: its docstring, then each public name."""
    lines = [f"# `{module}`", "", f"::: {module}", "    options:", "      members: false"]
    lines += ["      show_root_heading: false", "      show_root_toc_entry: false"]
    for name in sorted(names, key=str.lower):
        whole = f"{module}.{name}"
        if whole in public_modules():  # a module with a page of its own
            lines += ["", f"## {name} {{#{whole}}}", "", f"See [`{whole}`]({whole}.md)."]
        elif not name.startswith("__"):
            lines += ["", f"::: {module}.{name}"]
    return "\n".join(lines) + "\n"


def cli_page() -> str:
    """Write the page of the commands and all their options."""
    context = click.Context(program, info_name="konko-async")
    parts = [CLI_HEAD, *command_section(program, context)]
    for name in program.list_commands(context):
        command = program.get_command(context, name)
        parts += command_section(command, click.Context(command, info_name=name, parent=context))
    return "\n".join(parts)


def command_section(command: click.Command, context: click.Context) -> Iterator[str]:
    """Write one command: its usage, what it does, its options."""
    yield f"\n## {context.command_path}\n"
    yield f"```text\n{command.get_usage(context)}\n```\n"
    yield paragraphs(command.help or "")
    yield "\n| option | what |\n|---|---|"
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is not None:
            names, text = (" ".join(part.split()).replace("|", "\\|") for part in record)
            yield f"| `{names}` | {escaped(text)} |"
    yield paragraphs(command.epilog or "")


def paragraphs(text: str) -> str:
    """Let click's paragraphs be Markdown's; those that begin with a backspace keep their lines."""
    written = []
    for paragraph in text.strip().split("\n\n"):
        if paragraph.startswith("\b"):
            lines = paragraph.removeprefix("\b").strip("\n")
            written.append(f"\n```text\n{lines}\n```\n")
        else:
            written.append(escaped(paragraph) + "\n")
    return "\n".join(written)


def escaped(text: str) -> str:
    """Keep Markdown and HTML from reading marks in plain text."""
    return re.sub(r"([*_\[\]`])", r"\\\1", html.escape(text, quote=False))


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    for source, target in ROOT_PAGES.items():
        text = LINK.sub(partial(from_root, page=target), (ROOT / source).read_text())
        files.append(File.generated(config, target, content=text))
    for module, names in public_modules().items():
        page = f"{API}/{module}.md"
        files.append(File.generated(config, page, content=api_page(module, names)))
    files.append(File.generated(config, CLI, content=cli_page()))
    return files


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List the modules' pages in the navigation."""
    reference = next(part["Reference"] for part in config.nav if "Reference" in part)
    python = next(part for part in reference if isinstance(part, dict) and "Python" in part)
    python["Python"] = [{name: f"{API}/{name}.md"} for name in public_modules()]
    return config


def from_root(match: re.Match[str], page: str) -> str:
    """Rewrite a link of a page at the repository's root for its place on the site."""
    link = match[1]
    if "://" in link:
        return link
    target = ROOT_PAGES.get(link, link.removeprefix("docs/") if link.startswith("docs/") else None)
    if target is None:
        return posixpath.relpath(f"../{link}", posixpath.dirname(page))
    return posixpath.relpath(target, posixpath.dirname(page))


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, **_: object) -> str:
    """Let links that leave docs/ lead to the site's copy of that page, or to the repository."""

    def rewrite(match: re.Match[str]) -> str:
        link = match[1]
        if "://" in link:
            return link
        target = posixpath.normpath(posixpath.join(posixpath.dirname(page.file.src_uri), link))
        if not target.startswith("../"):
            return link
        outside = target.removeprefix("../")
        if outside in ROOT_PAGES:
            return posixpath.relpath(ROOT_PAGES[outside], posixpath.dirname(page.file.src_uri))
        kind = "tree" if (ROOT / outside).is_dir() else "blob"
        return f"{config.extra['repository']}/{kind}/main/{outside}"

    return LINK.sub(rewrite, markdown)
