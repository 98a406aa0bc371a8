"""Commands over several endpoints: by options, by a file, by the environment."""

import json

import pytest
from cli_kit import CHAT_MODEL, KEY, environment, run

from konko_async.testing import Emulator


@pytest.fixture
async def pair():
    async with Emulator(answer_tokens=4) as one, Emulator(answer_tokens=4) as two:
        yield one, two


def rows(folder, count=40):
    path = folder / "in.jsonl"
    lines = [json.dumps({"prompt": f"Question {number}"}) for number in range(count)]
    path.write_text("\n".join(lines))
    return path


async def test_a_batch_goes_to_all_endpoints_and_the_summary_says_so(pair, tmp_path):
    names = [option for server in pair for option in ("--endpoint", server.base_url)]
    out = tmp_path / "out.jsonl"
    done = await run(
        "batch", str(rows(tmp_path)), str(out), "-m", CHAT_MODEL, "--prompt", "{prompt}", *names,
        env=environment(home=tmp_path, KONKO_API_KEY=KEY),
    )  # fmt: skip
    assert done.code == 0, done.err
    assert len(out.read_text().splitlines()) == 40
    assert all(server.received >= 5 for server in pair)
    assert "endpoints" in done.err
    assert KEY not in done.err + done.out


async def test_a_file_names_endpoints_with_keys_of_the_environment(pair, tmp_path):
    one, two = pair
    file = tmp_path / "endpoints.toml"
    file.write_text(
        f"""balance = "priority"
[[endpoints]]
base_url = "{one.base_url}"
api_key_env = "FIRST_KEY"
models = {{ "fast" = "{CHAT_MODEL}" }}
[[endpoints]]
base_url = "{two.base_url}"
api_key_env = "SECOND_KEY"
max_concurrency = 2
"""
    )
    env = environment(home=tmp_path, FIRST_KEY=KEY, SECOND_KEY=KEY)
    done = await run("chat", "-m", "fast", "--endpoints", str(file), "Hello?", env=env)
    assert done.code == 0, done.err
    assert (one.received, two.received) == (1, 0)
    done = await run("chat", "-m", CHAT_MODEL, "Hello?", env={**env, "KONKO_ENDPOINTS": str(file)})
    assert done.code == 0, done.err
    assert (one.received, two.received) == (1, 1)
    urls = f"{one.base_url}, {two.base_url}"
    done = await run(
        "models", env=environment(home=tmp_path, KONKO_API_KEY=KEY, KONKO_ENDPOINTS=urls)
    )
    assert CHAT_MODEL in done.out


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("endpoints = []", "names no endpoint"),
        ("[[endpoints]]\nbase_url = 'x'", "base_url must begin"),
        ("[[endpoints]]\nurl = 'x'", "url"),
        ("[[endpoints]]\nbase_url = 'http://localhost/v1'\napi_key_env = 'NOT_THERE'", "NOT_THERE"),
        ("balance = 'best'\nendpoints = []", "best"),
        ("[[", "TOML|Invalid|Expected|expected"),
    ],
)
async def test_a_file_that_cannot_be_used_is_refused(text, said, tmp_path):
    from click import UsageError

    from konko_async.cli._endpoints import endpoint_set

    file = tmp_path / "endpoints.toml"
    file.write_text(text)
    with pytest.raises(UsageError, match=said):
        endpoint_set((), str(file))
    with pytest.raises(UsageError, match="No such file"):
        endpoint_set((), str(tmp_path / "none.toml"))


async def test_two_ways_to_name_servers_are_refused(tmp_path):
    done = await run(
        "models", "--endpoint", "http://localhost:1/v1", "--base-url", "http://localhost:2/v1",
        env=environment(home=tmp_path),
    )  # fmt: skip
    assert done.code == 2
    assert "--base-url and --endpoint name" in done.err
