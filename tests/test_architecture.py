"""The walls of the house: who may import whom, how long a room may be, what has to be described.

Imports are parsed, not made, so that a wall is named even where nothing fails at runtime.
"""

import ast
import functools
from pathlib import Path

import pytest

import konko_async

ROOT = Path(konko_async.__file__).parent
MODULES = {
    ".".join(("konko_async", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}  # fmt: skip

# What each room may import of ours at runtime; imports for type checkers only are free.
ALLOWED = {
    "errors": "",
    "_version": "",
    "_records": "",
    "wire": "errors",
    "sse": "errors",
    "_framing": "sse",
    "_template": "wire errors",
    "_options": "errors",
    "_secret": "errors",
    "_settings": "_secret errors",
    "_pipeline": "errors",
    "_foreign": "errors",
    "_http": "",
    "_connector": "_deadline _foreign _http errors",
    "_checks": "wire errors",
    "_tool_calls": "wire",
    "_accumulate": "_tool_calls wire",
    "_verify": "wire errors",
    # The one room of the middleware that answers need, too: pure parsing of a header.
    "_server_errors": "middleware._retry_after wire errors",
    "limits": "_options _records errors",
    "middleware": "_pipeline _records _options _secret _settings _work limits errors",
    "_transport": "_checks _connector _foreign _http _pipeline _secret _settings _version errors",
    "_refusals": "_server_errors wire errors",
    "_arrivals": "_accumulate _framing _refusals _server_errors _template wire errors",
    "_feed": "_arrivals _foreign _pipeline _refusals wire errors",
    "_operations": "_accumulate _feed _pipeline _server_errors _transport wire errors",
    "_deadline": "",
    "_work": "",
    "_exchange": "_deadline _foreign _pipeline _server_errors _transport errors",
    "_stream": "_pipeline _template sse _accumulate wire errors",
    "_docstring": "",
    "_schema": "_docstring errors",
    "_structured": "_schema wire errors",
    "_shapes": "_schema",
    "_growing": "_shapes",
    "_parsed_stream": "_growing _shapes _stream wire errors",
    "tools": "_closing _docstring _schema wire errors",
    "_closing": "",
    "_merge": "_closing _stream errors",
    "_fanout": "_closing _stream _work errors",
    "_attempt": "",
    "_engine": "_attempt _exchange _operations _options _pipeline _records _settings _transport _verify limits "
    "middleware wire errors",
    "resources": "_checks _engine _fanout _operations _options _parsed_stream _pipeline _secret _settings _stream "
    "_structured _transport _verify tools wire errors",
    "_client": "_engine _merge _options _pipeline _records _secret _settings _transport resources limits middleware wire errors",
    "_default": "_client resources",
    "remote": "_client _engine _options _records _secret _transport limits errors",
    "__main__": "cli",
}  # fmt: skip
# These stand on the public face, as users do, and never on each other (nor on those not named).
PUBLIC = (
    "konko_async",
    *(
        f"konko_async.{name}"
        for name in ("errors", "sse", "limits", "remote", "tools", "wire", "middleware")
    ),
)
OUTER = {
    "batch": "",
    "bench": "testing local",
    "cli": "batch documents integrations.ray relay relay.aiohttp_web local testing summarize bench",
    "documents": "",
    "integrations": "batch relay",
    "local": "",
    "relay": "",
    "summarize": "batch documents",
    "testing": "",
}
# No clock, no loop, no socket: values in, values out.
PURE = {
    "errors", "sse", "wire", "_framing", "_tool_calls", "_accumulate", "_checks", "_secret",
    "_docstring", "_schema", "_structured", "_shapes", "_growing",
    "_settings", "_options", "_records", "_server_errors",
}  # fmt: skip
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
    "aiohttp": "_transport _connector _http _foreign _client testing relay local cli integrations bench",
    "tenacity": "middleware",
    "aiolimiter": "limits middleware",
    "click": "cli",
    "rich": "cli",
    "markdown_it": "cli",
    "pygments": "cli",
    "matplotlib": "cli",
    "bs4": "documents",
    "charset_normalizer": "documents",
    "docx": "documents",
    "pypdf": "documents",
    "prompt_toolkit": "cli",
    "starlette": "relay",
    "uvicorn": "",
    "uvloop": "cli bench",
    "xllamacpp": "local",
    "pytest": "testing",
    "ray": "integrations",
    "redis": "integrations",
    "hypothesis": "",
    "openai": "",
}
# May shrink, not grow; the limit for all others is 400.
LONG = {"errors": 450, "_fanout": 430, "limits._lane": 410}
LONG_FUNCTIONS = {"batch._batch.run_batch": 69}  # nearly all of it are its arguments
MAX_LINES, MAX_FUNCTION = 400, 60


@functools.cache
def parsed(name):
    return ast.parse(MODULES[name].read_text(encoding="utf-8"))


def for_type_checkers(node):
    return (
        isinstance(node, ast.If)
        and isinstance(node.test, ast.Name)
        and node.test.id == "TYPE_CHECKING"
    )


def found_imports(tree, *, functions):
    """Yield (module, names) of what is imported at runtime; in functions only if asked."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, ()
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are written out from the package's name on"
            yield node.module, tuple(alias.name for alias in node.names)
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) and not functions:
            continue
        elif for_type_checkers(node):
            for other in node.orelse:
                yield from found_imports(other, functions=functions)
        else:
            yield from found_imports(node, functions=functions)


def imports(name, *, functions=True):
    """Return the modules that a module imports; submodules where a name is one."""
    found = set()
    for module, names in found_imports(parsed(name), functions=functions):
        inner = {f"{module}.{n}" for n in names if f"{module}.{n}" in MODULES}
        found |= inner
        if not inner or len(inner) < len(names):
            found.add(module)
    return found


def room(name):
    """Return the top-level room that a module is in: ``wire`` of ``konko_async.wire._chat``."""
    return name.removeprefix("konko_async").removeprefix(".").partition(".")[0]


def ours(modules):
    return {module for module in modules if module.split(".")[0] == "konko_async"}


INNER_MODULES = [name for name in MODULES if room(name) in ALLOWED]
OUTER_MODULES = [name for name in MODULES if room(name) in OUTER]


def test_every_room_has_its_rule():
    unknown = {room(name) for name in MODULES} - ALLOWED.keys() - OUTER.keys() - {""}
    assert not unknown, f"say in ALLOWED or OUTER what these may import: {sorted(unknown)}"


@pytest.mark.parametrize("name", INNER_MODULES)
def test_rooms_import_only_what_they_may(name):
    allowed = {f"konko_async.{a}" for a in ALLOWED[room(name)].split()} | {
        f"konko_async.{room(name)}"
    }
    for module in ours(imports(name)):
        assert any(module == a or module.startswith(f"{a}.") for a in allowed), (
            f"{name} imports {module}"
        )


@pytest.mark.parametrize("name", OUTER_MODULES)
def test_outer_rooms_stand_on_the_public_face(name):
    friends = {f"konko_async.{friend}" for friend in OUTER[room(name)].split()}
    for module in ours(imports(name)):
        inside = room(module) == room(name)
        assert inside or module in PUBLIC or module in friends, f"{name} imports {module}"


@pytest.mark.parametrize("name", [name for name in MODULES if room(name) not in OUTER])
def test_the_core_knows_nothing_of_what_stands_on_it(name):
    # For type checkers neither.
    for node in ast.walk(parsed(name)):
        if isinstance(node, ast.ImportFrom) and name != "konko_async.__main__":
            assert room(node.module or "") not in OUTER or not (node.module or "").startswith(
                "konko_async"
            )


LAYERS = ("_breaker", "_fallback", "_hedge", "_limits", "_retry", "_telemetry")


@pytest.mark.parametrize("layer", LAYERS)
def test_layers_of_the_middleware_do_not_know_each_other(layer):
    others = {f"konko_async.middleware.{other}" for other in LAYERS if other != layer}
    found = imports(f"konko_async.middleware.{layer}")
    assert not found & (others | {"konko_async.middleware", "konko_async._transport"})


def test_there_are_no_cycles():
    graph = {name: ours(imports(name, functions=False)) & MODULES.keys() for name in MODULES}
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


@pytest.mark.parametrize("name", [name for name in MODULES if room(name) in PURE])
def test_pure_rooms_do_no_io(name):
    assert not {module.split(".")[0] for module in imports(name)} & IMPURE


@pytest.mark.parametrize("library", HOMES)
def test_libraries_are_known_in_few_places(library):
    allowed = HOMES[library].split()
    for name in MODULES:
        known = {module.split(".")[0] for module in imports(name)}
        assert library not in known or room(name) in allowed, f"{name} imports {library}"


@pytest.mark.parametrize("name", MODULES)
def test_modules_are_short_and_described(name):
    limit = LONG.get(name.removeprefix("konko_async."), MAX_LINES)
    assert len(MODULES[name].read_text(encoding="utf-8").splitlines()) <= limit
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


def functions(name):
    return [
        node
        for node in ast.walk(parsed(name))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
    ]


@pytest.mark.parametrize("name", MODULES)
def test_functions_are_short(name):
    for function in functions(name):
        full_name = f"{name}.{function.name}"
        limit = LONG_FUNCTIONS.get(full_name.removeprefix("konko_async."), MAX_FUNCTION)
        assert length(function) <= limit, full_name


def test_most_functions_are_very_short():
    lengths = sorted(length(function) for name in MODULES for function in functions(name))
    assert lengths[len(lengths) // 2] <= 10
    assert lengths[len(lengths) * 9 // 10] <= 30


@pytest.mark.parametrize("name", MODULES)
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


@pytest.mark.parametrize("name", MODULES)
def test_every_signature_is_annotated(name):
    for function in functions(name):
        arguments = function.args
        every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
        every += [a for a in (arguments.vararg, arguments.kwarg) if a is not None]
        for argument in every:
            assert argument.annotation or argument.arg in {"self", "cls"}, f"{name}.{function.name}"
        assert function.returns, f"{name}.{function.name}"
