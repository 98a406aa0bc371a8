"""The walls of the house: who may import whom, how long a room may be, what has to be described.

Imports are parsed, not made, so that a wall is named even where nothing fails at runtime.
"""

import ast
import functools
from pathlib import Path

import aiohttp
import pytest
from aiohttp import client_proto, connector

import konko_async

ROOT = Path(konko_async.__file__).parent
MODULES = {
    ".".join(("konko_async", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}  # fmt: skip

# What each wing may import of ours. Imports for type checkers and inside functions count too: a
# wing that knows another's types cannot be understood without it.
ALLOWED = {
    "_version": "",
    "_records": "",
    "errors": "_records",
    "wire": "_records errors",
    "sse": "errors",
    "_core": "_records wire errors",
    "_http": "_core _version wire errors",
    "limits": "_core _records errors",
    "middleware": "_core _records limits errors",
    "_streaming": "_http _core _records wire sse errors",
    "_structured": "_streaming wire errors",
    "tools": "_structured _streaming _core wire errors",
    "_balance": "_http middleware limits _core _records wire errors",
    "_engine": "_balance _streaming _http middleware limits _core _records wire errors",
    "resources": "_engine _structured _streaming _http _core _records tools wire errors",
    "_client": "resources _engine _balance _http middleware limits _core _records errors",
    "_module_client": "_client _engine resources",
    "remote": "_client _balance _engine _http limits _core _records errors",
    "__main__": "cli",
}
# These stand on the public face, as users do, and never on each other (nor on those not named).
PUBLIC = (
    "konko_async",
    "konko_async._core.lazy_names",  # not of the client: how any package loads its names late
    "konko_async._core.loopback",  # one answer for who may be sent a key, and who may listen
    *(
        f"konko_async.{name}"
        for name in ("errors", "sse", "limits", "remote", "tools", "wire", "middleware")
    ),
)
OUTER = {
    "batch": "",
    "bench": "testing local",
    "blocking": "batch _core.secret",
    "cli": "batch documents integrations.ray relay relay.aiohttp_web local testing summarize bench viewer",
    "documents": "",
    "integrations": "batch relay blocking _module_client",
    "local": "",
    "relay": "",
    "summarize": "batch documents",
    "testing": "",
    "viewer": "batch",
}
MAX_ROOMS, MAX_FILES = 32, 17
# No clock, no loop, no socket: values in, values out.
PURE = (
    "errors",
    "sse",
    "wire",
    "_records",
    "_core.classification",
    "_core.config",
    "_core.loopback",
    "_core.policies",
    "_core.secret",
    "_core.validation",
    "_http.error_responses",
    "_http.retry_after",
    "_streaming.accumulate",
    "_streaming.delta_template",
    "_streaming.chunk_decoder",
    "_streaming.chunk_repair",
    "_streaming.event_splitter",
    "_streaming.loose_sse",
    "_streaming.stream_errors",
    "wire._tool_calls",
    "_structured.docstring",
    "_structured.find_json",
    "_structured.json_schema",
    "_structured.partial_json",
    "_structured.partial_types",
    "_structured.portable_pattern",
    "_structured.response_format",
)
IMPURE = {
    "asyncio",
    "socket",
    "ssl",
    "select",
    "threading",
    "subprocess",
    "aiohttp",
    "tenacity",
    "aiolimiter",
}
HOMES = {  # where a library of others may be known
    "aiohttp": "_http _client testing relay local cli integrations bench viewer",
    "tenacity": "middleware",
    "aiolimiter": "limits middleware",
    "click": "cli",
    "rich": "cli",
    "markdown_it": "cli",
    "pygments": "cli",
    "matplotlib": "cli",
    "chardet": "documents",
    "charset_normalizer": "documents",
    "html_to_markdown": "documents",
    "kreuzberg": "documents",
    "pypdfium2": "documents",
    "prompt_toolkit": "cli",
    "starlette": "relay",
    "uvicorn": "",
    "uvloop": "cli bench",
    "xllamacpp": "local",
    "pytest": "testing",
    "ray": "integrations",
    "redis": "integrations",
    "opentelemetry": "integrations",
    "prometheus_client": "integrations",
    "hypothesis": "",
    "langchain_core": "integrations",
    "llama_index": "integrations",
    "mcp": "integrations",
    "pydantic": "integrations",
    "openai": "",
}
# A module is one thought: 400 lines as a rule, and never more than 600.
LONG_FUNCTIONS = {"batch._run_batch.run_batch": 75, "_client.__init__": 84}  # mostly arguments
MAX_LINES, MAX_FUNCTION = 600, 60


@functools.cache
def parsed(name):
    return ast.parse(MODULES[name].read_text(encoding="utf-8"))


@functools.cache
def imports(name):
    """Return the modules that a module imports anywhere; submodules where a name is one."""
    found = set()
    for node in ast.walk(parsed(name)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are written out from the package's name on"
            names = [alias.name for alias in node.names]
            inner = {f"{node.module}.{n}" for n in names if f"{node.module}.{n}" in MODULES}
            found |= inner
            if not inner or len(inner) < len(names):
                found.add(node.module)
    return found


def room(name):
    """Return the top-level room that a module is in: ``wire`` of ``konko_async.wire._chat``."""
    return name.removeprefix("konko_async").removeprefix(".").partition(".")[0]


def ours(modules):
    return {module for module in modules if module.split(".")[0] == "konko_async"}


def is_pure(name):
    inner = name.removeprefix("konko_async.")
    return any(inner == pure or inner.startswith(f"{pure}.") for pure in PURE)


def for_each(names):
    """Run a test for each name: one test of pytest's, as thousands cost more than what they look at."""

    def decorate(check):
        def test():
            problems = []
            for name in names:
                try:
                    check(name)
                except AssertionError as error:
                    problems.append(f"{name}: {error}")
            assert not problems, "\n".join(problems)

        test.__name__, test.__doc__ = check.__name__, check.__doc__
        return test

    return decorate


INNER_MODULES = [name for name in MODULES if room(name) in ALLOWED]
OUTER_MODULES = [name for name in MODULES if room(name) in OUTER]


def test_there_are_few_rooms_side_by_side():
    top = [entry for entry in ROOT.iterdir() if entry.name != "__pycache__"]
    assert len(top) <= MAX_ROOMS
    folders = {path.parent for path in MODULES.values()}
    crowded = {
        str(folder.relative_to(ROOT)): count
        for folder in folders
        if folder != ROOT and (count := len(list(folder.glob("*.py")))) > MAX_FILES
    }
    assert not crowded


def test_every_pure_room_exists():
    assert {pure for pure in PURE if not any(is_pure(n) for n in MODULES if pure in n)} == set()


def test_every_room_has_its_rule():
    unknown = {room(name) for name in MODULES} - ALLOWED.keys() - OUTER.keys() - {""}
    assert not unknown, f"say in ALLOWED or OUTER what these may import: {sorted(unknown)}"


@for_each(INNER_MODULES)
def test_rooms_import_only_what_they_may(name):
    allowed = {f"konko_async.{a}" for a in ALLOWED[room(name)].split()} | {
        f"konko_async.{room(name)}"
    }
    for module in ours(imports(name)):
        assert any(module == a or module.startswith(f"{a}.") for a in allowed), (
            f"{name} imports {module}"
        )


@for_each(OUTER_MODULES)
def test_outer_rooms_stand_on_the_public_face(name):
    friends = {f"konko_async.{friend}" for friend in OUTER[room(name)].split()}
    for module in ours(imports(name)):
        inside = room(module) == room(name)
        assert inside or module in PUBLIC or module in friends, f"{name} imports {module}"


LAYERS = ("_breaker", "_cache.layer", "_fallback", "_hedge", "_limits", "_retry", "_telemetry")


@pytest.mark.parametrize("layer", LAYERS)
def test_layers_of_the_middleware_do_not_know_each_other(layer):
    others = {f"konko_async.middleware.{other}" for other in LAYERS if other != layer}
    found = imports(f"konko_async.middleware.{layer}")
    assert not found & (others | {"konko_async.middleware", "konko_async._http.session"})


def test_there_are_no_cycles():
    # The face names everything for type checkers, and loads it on first use: it is no room.
    graph = {
        name: (ours(imports(name)) & MODULES.keys()) - {"konko_async"} if room(name) else set()
        for name in MODULES
    }
    done, path = set(), []

    def visit(name):
        if name in done:
            return
        assert name not in path, "a cycle: " + " -> ".join([*path[path.index(name) :], name])
        path.append(name)
        for module in sorted(graph[name] - {name}):
            visit(module)
        path.pop()
        done.add(name)

    for name in graph:
        visit(name)


@for_each([name for name in MODULES if is_pure(name)])
def test_pure_rooms_do_no_io(name):
    assert not {module.split(".")[0] for module in imports(name)} & IMPURE


@for_each(MODULES)
def test_libraries_are_known_in_few_places(name):
    for library in {module.split(".")[0] for module in imports(name)} & HOMES.keys():
        assert room(name) in HOMES[library].split(), f"{name} imports {library}"


@for_each(MODULES)
def test_modules_are_short_and_described(name):
    assert len(MODULES[name].read_text(encoding="utf-8").splitlines()) <= MAX_LINES
    assert ast.get_docstring(parsed(name)) or name == "konko_async._version"


def length(function):
    """Lines of a function without its docstring."""
    lines = function.end_lineno - function.lineno + 1
    first = function.body[0]
    if (
        isinstance(first, ast.Expr)
        and isinstance(first.value, ast.Constant)
        and isinstance(first.value.value, str)
    ):
        lines -= first.end_lineno - first.lineno + 1
    return lines


@functools.cache
def functions(name):
    return [
        node
        for node in ast.walk(parsed(name))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]


@for_each(MODULES)
def test_functions_are_short(name):
    for function in functions(name):
        full_name = f"{name}.{function.name}"
        limit = LONG_FUNCTIONS.get(full_name.removeprefix("konko_async."), MAX_FUNCTION)
        assert length(function) <= limit, full_name


def test_most_functions_are_very_short():
    lengths = sorted(length(function) for name in MODULES for function in functions(name))
    assert lengths[len(lengths) // 2] <= 10
    assert lengths[len(lengths) * 9 // 10] <= 30


@for_each(MODULES)
def test_exported_names_are_described(name):
    exported = set()
    for node in parsed(name).body:
        if isinstance(node, ast.Assign) and [getattr(t, "id", "") for t in node.targets] == [
            "__all__"
        ]:
            exported = set(ast.literal_eval(node.value))
    for node in parsed(name).body:
        if (
            isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
            and node.name in exported
        ):
            assert ast.get_docstring(node), f"{name}.{node.name}"
            if isinstance(node, ast.ClassDef):
                for method in node.body:
                    overload = any(
                        "overload" in ast.dump(d) for d in getattr(method, "decorator_list", ())
                    )
                    if isinstance(method, (ast.FunctionDef, ast.AsyncFunctionDef)) and not overload:
                        described = ast.get_docstring(method) or method.name.startswith("_")
                        assert described, f"{name}.{node.name}.{method.name}"


@for_each(MODULES)
def test_every_signature_is_annotated(name):
    for function in functions(name):
        arguments = function.args
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        every += [a for a in (arguments.vararg, arguments.kwarg) if a is not None]
        for argument in every:
            assert argument.annotation or argument.arg in {"self", "cls"}, f"{name}.{function.name}"
        assert function.returns, f"{name}.{function.name}"


# -- aiohttp's private names -----------------------------------------------------------------------

INSIDES = "konko_async._http.aiohttp_internals"


def private_names_of_aiohttp():
    """Names that aiohttp's client keeps to itself: of its classes and of their instances."""
    kinds = (
        aiohttp.ClientSession,
        aiohttp.ClientRequest,
        aiohttp.ClientResponse,
        aiohttp.StreamReader,
        aiohttp.TCPConnector,
        client_proto.ResponseHandler,
        connector.Connection,
    )
    names = set()
    for kind in kinds:
        for base in kind.__mro__[:-1]:
            for value in vars(base).values():
                code = getattr(value, "__code__", None)
                names |= set(code.co_names) if code else set()
            names |= vars(base).keys()
    return {name for name in names if name.startswith("_") and not name.startswith("__")}


def reaches_inside(name):
    """Where a module uses a private name of aiohttp's, as an attribute or in a string."""
    private = private_names_of_aiohttp()
    for node in ast.walk(parsed(name)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "aiohttp":
            yield from (alias.name for alias in node.names if alias.name.startswith("_"))
        elif isinstance(node, ast.Attribute) and node.attr in private:
            # What a class of ours calls its own is its own, unless it is one of aiohttp's.
            if not (isinstance(node.value, ast.Name) and node.value.id in {"self", "cls"}):
                yield node.attr
        elif isinstance(node, ast.Call) and getattr(node.func, "id", "") in {
            "getattr",
            "setattr",
            "hasattr",
            "delattr",
        }:
            if getattr(node.args[0], "id", "") == "self":
                continue
            texts = [a.value for a in node.args if isinstance(a, ast.Constant)]
            yield from (text for text in texts if isinstance(text, str) and text in private)


def subclasses_of_aiohttps(name):
    """Classes that see aiohttp's private names as their own."""
    kinds = {"Body", "HookedConnector", "ResponseHandler", "StreamReader", "TCPConnector"}
    for node in ast.walk(parsed(name)):
        if isinstance(node, ast.ClassDef):
            bases = {ast.unparse(base).rpartition(".")[2] for base in node.bases}
            roots = {ast.unparse(base).partition(".")[0] for base in node.bases}
            if bases & kinds or "aiohttp" in roots:
                yield node


def knows_aiohttp(name):
    return any(module.split(".")[0] == "aiohttp" for module in imports(name))


# Asked within the test, not when tests are collected, which each worker does: it reads every module.
@for_each(MODULES)
def test_private_names_of_aiohttp_are_used_in_one_module(name):
    if name == INSIDES or not knows_aiohttp(name):
        return
    assert not list(reaches_inside(name)), f"put it into {INSIDES}, and into its probe"
    for kind in subclasses_of_aiohttps(name):
        own = {
            node.attr
            for node in ast.walk(kind)
            if isinstance(node, ast.Attribute) and getattr(node.value, "id", "") in {"self", "cls"}
        }
        assert not own & private_names_of_aiohttp(), f"{name}.{kind.name}"


def test_the_search_for_private_names_finds_those_that_are_used():
    found = set(reaches_inside(INSIDES))
    assert {"_conns", "_acquired", "_buffer", "_reading_paused"} <= found
    assert len(list(subclasses_of_aiohttps(INSIDES))) == 3
    assert len(list(subclasses_of_aiohttps("konko_async._http.connector"))) == 1
