"""Write the types of ``konko_async.blocking`` from the asynchronous classes that it stands for.

python scripts/make_blocking_stubs.py [--check]

What is read is their source: signatures, overloads, properties. ``async def`` becomes ``def``, an
asynchronous iterator an iterator, what is awaited what awaiting it gives. ``--check`` writes
nothing, and fails if the committed file says something else; a test does the same.
"""

from __future__ import annotations

import ast
import builtins
import copy
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parent.parent
STUB = ROOT / "konko_async" / "blocking" / "__init__.pyi"

# Where each class is, in the order in which the stub has them: bases first.
CLASSES = {
    "FilePages": "blocking._pages",
    "BatchPages": "blocking._pages",
    "Closing": "_core.tasks",
    "Stream": "_streaming.stream",
    "ChatStream": "_streaming.stream",
    "CompletionStream": "_streaming.stream",
    "ParsedChatStream": "_structured.parsed_stream",
    "ParsedEventStream": "_structured.parsed_stream",
    "MapResults": "_engine.map",
    "ToolRun": "tools._run",
    "Mapped": "resources._base",
    "StoredCompletions": "resources._stored",
    "PreparedChat": "resources._chat_prepare",
    "ChatCompletions": "resources._chat",
    "Chat": "resources._chat",
    "Completions": "resources._completions",
    "Embeddings": "resources._embeddings",
    "Models": "resources._models",
    "Files": "resources._files",
    "Batches": "resources._batches",
    "RawResponse": "resources._raw",
    "_Response": "resources._responses",
    "APIResponse": "resources._responses",
    "StreamedAPIResponse": "resources._responses",
    "AsyncKonko": "_client",
}
# Those that give HTTP responses: where they are, and the classes whose methods they have.
_CHAT = ("ChatCompletions", "StoredCompletions")
RESPONSES = {
    "ChatWithRawResponse": ("resources._chat_responses", _CHAT),
    "ChatWithStreamingResponse": ("resources._chat_responses", _CHAT),
    "CompletionsWithRawResponse": ("resources._completions", ("Completions",)),
    "CompletionsWithStreamingResponse": ("resources._completions", ("Completions",)),
    "EmbeddingsWithRawResponse": ("resources._embeddings", ("Embeddings",)),
    "EmbeddingsWithStreamingResponse": ("resources._embeddings", ("Embeddings",)),
    "ModelsWithRawResponse": ("resources._models", ("Models",)),
    "ModelsWithStreamingResponse": ("resources._models", ("Models",)),
}
FUNCTIONS = {"run_batch": "batch._run_batch"}
# What is awaited and also iterated over: the names of what awaiting it gives are its own, too.
AWAITED = {"ToolRun": ("ToolRunResult", "tools._events")}
RENAMED = {
    "AsyncKonko": "Konko",
    "AsyncIterator": "Iterator",
    "ModelPage": "ModelList",  # which awaiting it gives
}
PAGES = ("ModelList",)
DUNDERS = {
    "__iter__": "__iter__",
    "__aiter__": "__iter__",
    "__anext__": "__next__",
    "__aenter__": "__enter__",
    "__aexit__": "__exit__",
    "aclose": "close",
    "aiter_bytes": "iter_bytes",
}
# Bases that say how not to use an asynchronous object, or where its calls go.
DROPPED = {"AsyncContextOnly", "AsyncIterableOnly", "Eventful", "NotAwaitable", "Resource"}
# As in the asynchronous class: the events of a stream are not its chunks.
EVENTS = (
    "-> ChatCompletionStreamEvent[T]: ...",
    "-> ChatCompletionStreamEvent[T]: ...  # type: ignore[override]  # events, not chunks",
)
NAMES = ("batches", "chat", "completions", "embeddings", "files", "models")
HEAD = '"""Types of the blocking client, written by scripts/make_blocking_stubs.py."""'


@dataclass
class Source:
    """A module as far as it says types.

    Attributes:
        name: the module's.
        tree: its source.
        imports: names that it imports: the module, and the name there (empty: the module itself).
        defined: names that it defines.
    """

    name: str
    tree: ast.Module
    imports: dict[str, tuple[str, str]] = field(default_factory=dict)
    defined: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, name: str) -> Source:
        """Read a module of the package."""
        path = ROOT / "konko_async" / f"{name.replace('.', '/')}.py"
        found = cls(f"konko_async.{name}", ast.parse(path.read_text(encoding="utf-8")))
        for node in ast.walk(found.tree):
            if isinstance(node, ast.ImportFrom):
                for alias in node.names:
                    found.imports[alias.asname or alias.name] = (node.module or "", alias.name)
            elif isinstance(node, ast.Import):
                found.imports.update({alias.name: (alias.name, "") for alias in node.names})
        for statement in found.tree.body:
            if isinstance(statement, ast.Assign):
                found.defined.update(ast.unparse(target) for target in statement.targets)
            elif isinstance(statement, ast.AnnAssign):
                found.defined.add(ast.unparse(statement.target))
            elif isinstance(statement, ast.ClassDef):
                found.defined.add(statement.name)
        return found

    def find(self, name: str) -> ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef:
        """Return a class or function."""
        for node in self.tree.body:
            if getattr(node, "name", None) == name:
                return node  # type: ignore[return-value]  # what has that name is one of these
        raise SystemExit(f"there is no {name} in {self.name}")


class Blocking(ast.NodeTransformer):
    """Puts the blocking names where the asynchronous ones stand."""

    def visit_Name(self, node: ast.Name) -> ast.Name:
        """Rename one."""
        return ast.Name(RENAMED.get(node.id, node.id), node.ctx)

    def visit_Constant(self, node: ast.Constant) -> ast.expr:
        """Read an annotation in quotes."""
        return node


class Stub:
    """Collects what the stub says, and what it has to import for that."""

    def __init__(self) -> None:
        self.sources: dict[str, Source] = {}
        self.imports: dict[str, tuple[str, str]] = {}
        self.body: list[ast.stmt] = []

    def source(self, name: str) -> Source:
        """Return a module, read once."""
        return self.sources.setdefault(name, Source.of(name))

    def add(self, node: ast.stmt, source: Source) -> None:
        """Add a statement, and the imports of its names."""
        self.body.append(self.resolved(node, source))

    def resolved(self, node: ast.stmt, source: Source) -> ast.stmt:
        """Return a statement with the blocking names, imported."""
        node = Blocking().visit(node)
        own = {*CLASSES, *RESPONSES, *RENAMED.values()} - {"Iterator", *PAGES}
        for found in ast.walk(node):
            if (
                isinstance(found, ast.Name)
                and found.id not in own
                and not hasattr(builtins, found.id)
            ):
                found.id = self.imported(found.id, source)
        return node

    def imported(self, name: str, source: Source) -> str:
        """Import a name as the source does, or from it; return what it is called here."""
        origin = source.imports.get(name)
        if name == "Iterator":
            origin = ("collections.abc", name)
        if name == "AbstractContextManager":
            origin = ("contextlib", name)
        if name in PAGES:
            origin = ("konko_async.wire", name)
        if origin is None:
            if name not in source.defined:
                return name  # a local one, such as a parameter's
            origin = (source.name, name)
        # Type variables of one name differ from module to module.
        called = name
        if self.imports.get(called, origin) != origin:
            called = f"_{source.name.rpartition('.')[2].strip('_')}_{name}"
        self.imports[called] = origin
        return called

    def add_class(self, name: str) -> None:
        """Add a class."""
        source = self.source(CLASSES[name])
        node = source.find(name)
        assert isinstance(node, ast.ClassDef)  # noqa: S101 - the tables say so
        bases = [base for base in node.bases if ast.unparse(base) not in DROPPED]
        body = [each for part in node.body for each in self.member(part, name)]
        body += self.parts(node)
        overloaded = {part.name for part in body if is_overload(part)}  # type: ignore[attr-defined]  # a function
        body = [
            part
            for part in body
            if getattr(part, "name", None) not in overloaded or is_overload(part)
        ]
        if name in AWAITED:
            body += self.of_the_result(name, body)
        kept = ast.ClassDef(name, bases, [], body or [ast.Expr(ast.Constant(...))], [])
        kept.name = RENAMED.get(name, name)
        self.add(kept, source)

    def add_responses(self, name: str) -> None:
        """Add a class whose methods give HTTP responses."""
        module, owners = RESPONSES[name]
        node = self.source(module).find(name)
        assert isinstance(node, ast.ClassDef)  # noqa: S101 - the table says so
        init = next(part for part in node.body if getattr(part, "name", "") == "__init__")
        body: list[ast.stmt] = []
        for each in init.body:  # type: ignore[attr-defined]  # a function
            method = ast.unparse(each).partition(" = ")[0].removeprefix("self.")
            body += self.responding(method, owners, streamed="Streaming" in name)
        self.body.append(ast.ClassDef(name, [], [], body, []))

    def responding(self, method: str, owners: tuple[str, ...], *, streamed: bool) -> list[ast.stmt]:
        """Return a method of one of the classes, as it gives an HTTP response."""
        for owner in owners:
            source = self.source(CLASSES[owner])
            node = source.find(owner)
            found = [part for part in node.body if getattr(part, "name", None) == method]
            overloaded = [part for part in found if is_overload(part)]
            if found:
                break
        else:
            raise SystemExit(f"there is no {method} in {owners}")
        made = []
        for part in overloaded or found:
            assert isinstance(part, (ast.FunctionDef, ast.AsyncFunctionDef))  # noqa: S101 - a method
            # A copy: the class itself has the method, too.
            kept = signature(copy.deepcopy(part), method)
            result = ast.unparse(kept.returns) if kept.returns is not None else "None"
            wrapped = (
                f"AbstractContextManager[StreamedAPIResponse[{result}]]"
                if streamed
                else f"APIResponse[{result}]"
            )
            kept.returns = ast.parse(wrapped, mode="eval").body
            made.append(self.resolved(kept, source))
        return made

    def member(self, part: ast.stmt, owner: str) -> list[ast.stmt]:
        """Return what the stub has of a member: nothing, or one statement."""
        if isinstance(part, (ast.FunctionDef, ast.AsyncFunctionDef)):
            name = DUNDERS.get(part.name, part.name)
            wanted = not name.startswith("_") or part.name in DUNDERS
            wanted = wanted or (name == "__init__" and owner == "AsyncKonko")
            static = any(
                ast.unparse(d) in {"classmethod", "staticmethod"} for d in part.decorator_list
            )
            return [signature(part, name)] if wanted and not static else []
        if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name):
            return [] if part.target.id.startswith("_") else [part]
        # Such as `copy = with_options`.
        if isinstance(part, ast.Assign) and isinstance(part.value, ast.Name):
            return [part]
        return []

    @staticmethod
    def parts(node: ast.ClassDef) -> list[ast.stmt]:
        """Return the public attributes that ``__init__`` makes, of a class with slots for them."""
        init = next((p for p in node.body if getattr(p, "name", "") == "__init__"), None)
        slots = next((p for p in node.body if ast.unparse(p).startswith("__slots__")), None)
        if init is None or slots is None:
            return []
        named = ast.literal_eval(slots.value)  # type: ignore[attr-defined]  # an assignment
        found: list[ast.stmt] = []
        for each in ast.walk(init):
            # Made by a class, whose name is the type: not what a method returns.
            made = isinstance(each, ast.Assign) and isinstance(each.value, ast.Call)
            if made and isinstance(each.value.func, ast.Name):
                target = each.targets[0]
                if isinstance(target, ast.Attribute) and target.attr in named:
                    if target.attr.startswith("_"):
                        continue
                    found.append(
                        ast.AnnAssign(
                            ast.Name(target.attr, ast.Store()), each.value.func, None, simple=1
                        )
                    )
        return found

    def of_the_result(self, name: str, body: list[ast.stmt]) -> list[ast.stmt]:
        """Return the attributes that awaiting an object of the class would give."""
        result, module = AWAITED[name]
        node = self.source(module).find(result)
        assert isinstance(node, ast.ClassDef)  # noqa: S101 - the tables say so
        known = {getattr(part, "name", None) for part in body}
        return [
            part
            for part in node.body
            if isinstance(part, ast.AnnAssign) and ast.unparse(part.target) not in known
        ]

    def add_function(self, name: str) -> None:
        """Add a function."""
        source = self.source(FUNCTIONS[name])
        node = source.find(name)
        assert isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))  # noqa: S101 - the tables say so
        self.add(signature(node, name), source)

    def text(self) -> str:
        """Return the stub."""
        head = ast.parse(HEAD).body
        tables: dict[str, list[ast.alias]] = {}
        for called, (module, name) in sorted(self.imports.items()):
            alias = ast.alias(name or called, None if called == (name or called) else called)
            tables.setdefault(module if name else "", []).append(alias)
        imports: list[ast.stmt] = [ast.Import([alias]) for alias in tables.pop("", [])]
        imports += [ast.ImportFrom(module, tables[module], 0) for module in sorted(tables)]
        source = "\n".join(f"{name}: {name.capitalize()}" for name in NAMES)
        exported = sorted([*NAMES, "close", "Konko", *FUNCTIONS, *SHOWN])
        tail = ast.parse(f"{source}\ndef close() -> None: ...\n__all__ = {exported!r}").body
        module = ast.Module([*head, *imports, *self.body, *tail], [])
        return ast.unparse(ast.fix_missing_locations(module))


# Classes that programs name in their own annotations; the module has them at run time, too.
SHOWN = (
    "ChatStream",
    "CompletionStream",
    "MapResults",
    "ParsedChatStream",
    "ParsedEventStream",
    "ToolRun",
)


# Decorators that a stub keeps, and as what: the resource that a client makes on first use is an
# attribute for its caller.
KEPT = {"overload": "overload", "property": "property", "cached_property": "property"}


def is_overload(part: ast.stmt) -> bool:
    """Whether a member is one of several signatures."""
    return any(ast.unparse(each) == "overload" for each in getattr(part, "decorator_list", ()))


def signature(part: ast.FunctionDef | ast.AsyncFunctionDef, name: str) -> ast.FunctionDef:
    """Return a function without its body, which no caller awaits."""
    decorators = [KEPT.get(ast.unparse(each)) for each in part.decorator_list]
    kept: list[ast.expr] = [ast.Name(name, ast.Load()) for name in decorators if name is not None]
    arguments = part.args
    for defaults in (arguments.defaults, arguments.kw_defaults):
        defaults[:] = [None if value is None else ast.Constant(...) for value in defaults]
    returns = part.returns
    if part.name in {"__aenter__", "__aiter__"}:
        returns = ast.Name("Self", ast.Load())
    body: list[ast.stmt] = [ast.Expr(ast.Constant(...))]
    return ast.FunctionDef(name, arguments, body, kept, returns)


def make() -> str:
    """Return the stub as it should be, not formatted."""
    stub = Stub()
    for name in CLASSES:
        stub.add_class(name)
    for name in RESPONSES:
        stub.add_responses(name)
    for name in FUNCTIONS:
        stub.add_function(name)
    return stub.text()


def same(one: str, other: str) -> bool:
    """Whether two stubs say the same, however they are formatted."""
    return ast.dump(ast.parse(one)) == ast.dump(ast.parse(other))


def main() -> int:
    """Write the stub, or check it."""
    text = make()
    if "--check" in sys.argv[1:]:
        if same(text, STUB.read_text(encoding="utf-8")):
            return 0
        print(f"{STUB.relative_to(ROOT)} is out of date: python scripts/make_blocking_stubs.py")
        return 1
    ruff = [sys.executable, "-m", "ruff", "format", "--stdin-filename", str(STUB), "-"]
    done = subprocess.run(ruff, input=text, capture_output=True, text=True, check=True)
    STUB.write_text(done.stdout.replace(*EVENTS), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
