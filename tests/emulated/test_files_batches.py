"""``client.files`` and ``client.batches``, and the emulator's side of them."""

import asyncio
import io
import json
import stat
from pathlib import Path

import openai
import pytest

import konko_async
from konko_async import AsyncKonko, ConfigurationError, NotFoundError, RetryPolicy
from konko_async.testing import BatchSettings, Emulator, faults

MODEL = "codellama/codellama-13b-instruct"
URL = "/v1/chat/completions"


def row(name, *, url=URL, **body):
    body = {"model": MODEL, "messages": [{"role": "user", "content": f"say {name}"}], **body}
    return {"custom_id": name, "method": "POST", "url": url, "body": body}


def lines(rows):
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


@pytest.fixture
async def emulator():
    async with Emulator() as running:
        yield running


@pytest.fixture
async def client(emulator):
    async with AsyncKonko(base_url=emulator.base_url, api_key="any", retry=None) as made:
        yield made


async def ended(client, batch):
    """Ask until it has ended."""
    async with asyncio.timeout(30):
        while not (batch := await client.batches.retrieve(batch.id)).ended:
            await asyncio.sleep(0.01)
    return batch


async def submit(client, rows, **options):
    file = await client.files.create(file=("in.jsonl", lines(rows)), purpose="batch")
    return await client.batches.create(input_file_id=file.id, endpoint=URL, **options)


# -- files -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["path", "str", "bytes", "open", "bytesio", "tuple", "typed"])
async def test_a_file_goes_up_and_comes_back(client, tmp_path, kind):
    data, path = b"line\n" * 100_000, tmp_path / 'a "b".jsonl'
    path.write_bytes(data)
    opened = path.open("rb")
    given = {
        "path": path,
        "str": str(path),
        "bytes": data,
        "open": opened,
        "bytesio": io.BytesIO(data),
        "tuple": ("name.jsonl", data),
        "typed": ("name.jsonl", path, "application/jsonl"),
    }[kind]
    with opened:
        file = await client.files.create(file=given, purpose="batch")
    assert (file.bytes, file.purpose, file.object) == (len(data), "batch", "file")
    assert (await client.files.retrieve(file.id)).id == file.id
    content = await client.files.content(file.id)
    assert content.read() == data
    assert content.text.startswith("line\n")
    content.write_to_file(tmp_path / "copy")
    assert await client.files.download(file.id, tmp_path / "again") == len(data)
    small = [await client.files.create(file=data, purpose="batch") for data in (b"small", b"")]
    sizes = [await client.files.download(entry.id, tmp_path / "small") for entry in small]
    assert (sizes, (tmp_path / "small").read_bytes()) == ([5, 0], b"")
    assert (tmp_path / "copy").read_bytes() == (tmp_path / "again").read_bytes() == data
    for name in ("copy", "again", "small"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600, "answers are private"
    assert (await client.files.delete(file.id)).deleted
    with pytest.raises(NotFoundError):
        await client.files.content(file.id)


async def test_an_upload_is_sent_again_from_its_beginning(emulator, tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_bytes(b"x" * 3_000_000)
    emulator.script(faults.Status(503), faults.Cut(), path="/files")
    retry = RetryPolicy(max_attempts=3, base_delay=0.001)
    async with AsyncKonko(base_url=emulator.base_url, api_key="any", retry=retry) as client:
        with path.open("rb") as opened:
            opened.seek(1_000_000)
            file = await client.files.create(file=opened, purpose="batch")
        assert file.bytes == 2_000_000
        emulator.script(faults.Cut(1), path="/files")
        assert await client.files.download(file.id, tmp_path / "out") == 2_000_000


async def test_files_are_listed_page_by_page(client, emulator):
    made = [await client.files.create(file=b"x", purpose="batch") for _ in range(7)]
    page = await client.files.list(limit=3)
    assert [file.id for file in page.data] == [file.id for file in made[:3:-1]]
    assert page.has_more
    before = emulator.received
    found = [file.id async for file in client.files.list(limit=3, order="asc", purpose="batch")]
    assert found == [file.id for file in made]
    assert emulator.received - before == 3
    assert [file async for file in client.files.list(purpose="fine-tune")] == []


async def test_what_cannot_be_uploaded_is_refused_before_anything_is_sent(
    client, emulator, tmp_path
):
    for given in (tmp_path / "none", 7, io.StringIO("text"), ("a", b"b", "c", "d")):
        with pytest.raises(ConfigurationError):
            await client.files.create(file=given, purpose="batch")
    with pytest.raises(ConfigurationError, match="purpose"):
        await client.files.create(file=b"x", purpose="")
    for name in ("", "..", None, "a\nb"):
        with pytest.raises(ConfigurationError, match="file_id"):
            await client.files.retrieve(name)
    with pytest.raises(ConfigurationError, match="limit"):
        await client.files.list(limit=0)
    assert not emulator.received
    with pytest.raises(ConfigurationError, match="cannot be written"):
        file = await client.files.create(file=b"x", purpose="batch")
        await client.files.download(file.id, tmp_path / "no" / "folder")


# -- batches -----------------------------------------------------------------------------------------


async def test_a_batch_is_answered(client):
    batch = await submit(client, [row("a"), row("b", temperature=9)], metadata={"run": "1"})
    assert batch.metadata == {"run": "1"}
    batch = await ended(client, batch)
    assert (batch.status, batch.request_counts.total) == ("completed", 2)
    [good] = (await client.files.content(batch.output_file_id)).text.splitlines()
    [bad] = (await client.files.content(batch.error_file_id)).text.splitlines()
    assert json.loads(good)["custom_id"] == "a"
    assert json.loads(good)["response"]["body"]["choices"][0]["message"]["content"]
    assert json.loads(bad)["response"]["status_code"] == 400
    listed = await client.batches.list(limit=5)
    assert [entry.id for entry in listed.data] == [batch.id]


@pytest.mark.parametrize(
    ("rows", "code"),
    [
        ([row("a"), row("a")], "duplicate_custom_id"),
        ([row("a", url="/v1/embeddings")], "mismatched_endpoint"),
        ([row("a", stream=True)], "invalid_request"),
        ([], "empty_file"),
        ([row(str(n)) for n in range(5)], "too_many_requests"),
    ],
)
async def test_a_batch_is_refused(client, emulator, rows, code):
    emulator.batches.max_rows = 4
    batch = await ended(client, await submit(client, rows))
    assert batch.status == "failed"
    assert batch.errors.data[0].code == code


async def test_a_batch_expires_and_is_cancelled_with_what_it_has(client, emulator):
    emulator.batches = BatchSettings(rows_per_second=200.0, window=0.1)
    batch = await ended(client, await submit(client, [row(str(n)) for n in range(500)]))
    assert batch.status == "expired"
    found = (await client.files.content(batch.error_file_id)).text.splitlines()
    assert json.loads(found[-1])["error"]["code"] == "batch_expired"
    assert len(found) + batch.request_counts.completed == 500
    emulator.batches = BatchSettings(rows_per_second=0.001)
    batch = await submit(client, [row("a")])
    await emulator.wait_until(lambda: True)
    assert (await client.batches.cancel(batch.id)).status == "cancelling"
    assert (await ended(client, batch)).status == "cancelled"


async def test_module_level(emulator, monkeypatch):
    monkeypatch.setenv("KONKO_BASE_URL", emulator.base_url)
    monkeypatch.setenv("KONKO_API_KEY", "any")
    file = await konko_async.files.create(file=b"x", purpose="batch")
    assert [found.id async for found in konko_async.files.list()] == [file.id]
    assert (await konko_async.batches.list()).data == []
    await konko_async.aclose()


# -- openai's own client on the emulator -------------------------------------------------------------


async def test_openais_client_runs_a_batch(emulator, tmp_path):
    path = tmp_path / "in.jsonl"
    path.write_bytes(lines([row("a"), row("b"), row("c", max_tokens=0)]))
    emulator.batches.reverse = True
    options = {"api_key": emulator.api_key, "base_url": emulator.base_url, "max_retries": 0}
    async with openai.AsyncOpenAI(**options, _strict_response_validation=True) as client:
        with path.open("rb") as opened:
            file = await client.files.create(file=opened, purpose="batch")
        batch = await client.batches.create(
            input_file_id=file.id, endpoint=URL, completion_window="24h", metadata={"a": "b"}
        )
        async with asyncio.timeout(30):
            while batch.status not in {"completed", "failed"}:
                await asyncio.sleep(0.01)
                batch = await client.batches.retrieve(batch.id)
        assert (batch.status, batch.request_counts.completed, batch.request_counts.failed) == (
            "completed", 2, 1,
        )  # fmt: skip
        output = (await client.files.content(batch.output_file_id)).text
        assert [json.loads(line)["custom_id"] for line in output.splitlines()] == ["b", "a"]
        assert [entry.id async for entry in client.batches.list(limit=1)] == [batch.id]
        assert len([entry async for entry in client.files.list(limit=1)]) == 3
        with pytest.raises(openai.ConflictError):
            await client.batches.cancel(batch.id)
        assert (await client.files.delete(file.id)).deleted
    await asyncio.get_running_loop().shutdown_default_executor()


@pytest.mark.parametrize("place", ["", "no/such/folder/out", "/dev/full"])
async def test_a_download_that_cannot_be_written_says_so(client, tmp_path, place):
    if place == "/dev/full" and not Path(place).exists():
        pytest.skip("a file that is always full is Linux's")
    file = await client.files.create(file=b"line\n" * 100_000, purpose="batch")
    with pytest.raises(ConfigurationError, match="the answer cannot be written: "):
        await client.files.download(file.id, tmp_path / place)
    # The connection is free again, or was closed.
    assert (await client.files.retrieve(file.id)).id == file.id
