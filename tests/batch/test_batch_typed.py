"""Typed rows: answers that are to be of a type or schema."""

import json

import msgspec
import pytest
from batch_kit import MODEL, line, read, run, write
from hypothesis import given, settings
from hypothesis import strategies as st

from konko_async import AsyncKonko, ConfigurationError
from konko_async.batch import Price, Processes, ServerSide
from konko_async.batch._typed.schema_check import check_schema, first_problem
from konko_async.testing import Emulator

SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


class Person(msgspec.Struct):
    name: str
    age: int


def answer(body):
    """Fits at once for row 0, at the second try for row 1, never for row 2."""
    texts = [m["content"] for m in body["messages"] if m["role"] == "user"]
    good, number = '{"name": "Ada", "age": 36}', int(texts[0][-1])
    if number == 0 or (number == 1 and len(texts) == 2):
        return f"```json\n{good}\n```" if number else good
    return '{"name": "Ada", "age": "old"}'


@pytest.fixture
async def emulator():
    async with Emulator(answer=answer) as running:
        yield running


@pytest.fixture
async def client(emulator):
    async with AsyncKonko(base_url=emulator.base_url, api_key="any", retry=None) as made:
        yield made


def rows_of(folder, count=3):
    rows = [line(n) for n in range(count)]
    for row in rows:
        del row["body"]["max_tokens"]
    return write(folder / "in.jsonl", rows)


@pytest.mark.parametrize("form", [Person, SCHEMA], ids=["type", "schema"])
async def test_values_are_stored_and_misfits_asked_again(client, emulator, tmp_path, form):
    source, output = rows_of(tmp_path), tmp_path / "out"
    prices = {MODEL: Price(1.0, 1.0)}
    report = await run(client, source, output, response_format=form, prices=prices)
    assert (report.done, report.failed) == (3, 1)
    found = {row["custom_id"]: row for row in read(output)}
    assert found["id-0"]["value"] == found["id-1"]["value"] == {"name": "Ada", "age": 36}
    assert "before" not in found["id-0"]["response"]
    assert found["id-1"]["response"]["before"]["calls"] == 1
    bad = found["id-2"]
    assert bad["error"]["code"] == "misfit"
    assert "age" in bad["error"]["message"]
    assert "old" in bad["response"]["body"]["choices"][0]["message"]["content"]
    assert len(emulator.requests) == 5
    assert all(r.body["response_format"]["type"] == "json_schema" for r in emulator.requests)
    # What is asked again has the answer and what was wrong with it, and is paid for.
    again = [r.body["messages"] for r in emulator.requests if len(r.body["messages"]) == 3]
    assert len(again) == 2
    assert "does not fit" in again[0][-1]["content"]
    paid = sum(emulator_usage(r) for r in emulator.requests)
    assert report.cost == pytest.approx(report.prompt_tokens + report.completion_tokens)
    assert paid > 0
    # Rows behind the last checkpoint are counted alike when they are read again.
    (tmp_path / "out.journal").write_bytes(
        b"".join((tmp_path / "out.journal").read_bytes().splitlines(keepends=True)[:2])
    )
    resumed = await run(client, source, output, response_format=form, prices=prices)
    assert (resumed.finished, resumed.failed) == (0, 1)
    assert resumed.completion_tokens > 0


def emulator_usage(record):
    return record.bytes_sent


async def test_a_table_has_columns_of_the_value(client, tmp_path):
    pa = pytest.importorskip("pyarrow.parquet")
    source = rows_of(tmp_path)
    await run(client, source, tmp_path / "out.parquet", response_format=SCHEMA)
    table = pa.read_table(tmp_path / "out.parquet")
    assert table.column("value.age").to_pylist() == [36, 36, None]
    assert table.column("value.name").to_pylist() == ["Ada", "Ada", None]
    await run(
        client, source, tmp_path / "out.csv", response_format=SCHEMA,
        columns=("custom_id", "value.age", "value"),
    )  # fmt: skip
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert lines[0] == "custom_id,value.age,value"
    assert lines[1].startswith("id-0,36,")


async def test_the_type_is_a_part_of_what_is_asked(client, tmp_path):
    source, output = rows_of(tmp_path, 1), tmp_path / "out"
    await run(client, source, output, response_format=SCHEMA)
    with pytest.raises(Exception, match="another parameters"):
        await run(client, source, output)
    own = line(0, body={**line(0)["body"], "response_format": {"type": "json_object"}})
    write(source, [own])
    await run(client, source, tmp_path / "b", response_format=SCHEMA)
    assert "value" not in read(tmp_path / "b")[0]


async def test_in_processes_and_by_jobs(client, emulator, tmp_path):
    source = rows_of(tmp_path)
    options = {"response_format": SCHEMA}
    report = await run(client, source, tmp_path / "a", workers=Processes(1), **options)
    assert (report.done, report.failed) == (3, 1)
    settings = ServerSide(first_poll=0.01, longest_poll=0.02, max_tries=2)
    report = await run(client, source, tmp_path / "b", server_side=settings, **options)
    assert (report.done, report.failed) == (3, 2)  # jobs cannot say what was wrong
    [good] = [row for row in read(tmp_path / "b") if not row["error"]]
    assert good["value"] == {"name": "Ada", "age": 36}
    assert emulator.received


async def test_what_is_no_type_is_refused(client, tmp_path):
    source = rows_of(tmp_path, 1)
    for bad, text in (
        ({"type": "text"}, "no type of JSON Schema"),
        ({"type": "object", "properties": {"a": {"$ref": "#/$defs/A"}}}, "refers to nothing"),
        ({"type": "string", "pattern": "("}, "pattern"),
        ({"type": "json_schema"}, "JSON object"),
    ):
        with pytest.raises(ConfigurationError, match=text):
            await run(client, source, tmp_path / "out", response_format=bad)
    with pytest.raises(ConfigurationError, match="max_reasks"):
        await run(client, source, tmp_path / "out", response_format=SCHEMA, max_reasks=-1)


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({"type": ["string", "null"]}, None, 1),
        ({"type": "integer"}, 2.0, 2.5),
        ({"type": "number"}, 1, True),
        ({"enum": ["a", 1]}, 1.0, True),
        ({"const": False}, False, 0),
        ({"minimum": 1, "exclusiveMaximum": 3}, 1, 3),
        ({"multipleOf": 0.1}, 0.3, 0.35),
        ({"minLength": 2, "maxLength": 3}, "ab", "abcd"),
        ({"pattern": "^a+$"}, "aa", "b"),
        ({"minItems": 1, "items": {"type": "string"}}, ["a"], ["a", 1]),
        ({"prefixItems": [{"type": "string"}], "items": False}, ["a"], ["a", "b"]),
        ({"uniqueItems": True}, [1, True], [1, 1.0]),
        ({"anyOf": [{"type": "string"}, {"type": "null"}]}, None, 1),
        ({"oneOf": [{"minimum": 1}, {"maximum": 5}]}, 9, 3),
        ({"allOf": [{"minimum": 1}, {"maximum": 5}]}, 3, 9),
        ({"not": {"type": "string"}}, 1, "a"),
        ({"additionalProperties": {"type": "integer"}}, {"a": 1}, {"a": "b"}),
        ({"patternProperties": {"^x": {}}, "additionalProperties": False}, {"xa": 1}, {"a": 1}),
        (
            {"$defs": {"T": {"type": "object", "properties": {"t": {"$ref": "#/$defs/T"}},
                             "additionalProperties": False}}, "$ref": "#/$defs/T"},
            {"t": {"t": {}}},
            {"t": {"u": 1}},
        ),
    ],
)  # fmt: skip
def test_schemas(schema, good, bad):
    assert check_schema(schema) is None
    assert first_problem(good, schema) is None
    assert first_problem(bad, schema).startswith("$")


@settings(max_examples=60)
@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), lambda s: st.lists(s) | st.dictionaries(st.text(), s)),
       st.sampled_from(["type", "items", "properties", "anyOf", "minimum", "enum", "required"]))  # fmt: skip
def test_no_value_breaks_the_check(value, keyword):
    schema = {"type": {"type": "object"}, "items": {"items": {"type": "string"}},
              "properties": {"properties": {"a": {"type": "null"}}}, "anyOf": {"anyOf": [{"type": "string"}]},
              "minimum": {"minimum": 3}, "enum": {"enum": [1, "a"]}, "required": {"required": ["a"]}}  # fmt: skip
    problem = first_problem(value, schema[keyword])
    assert problem is None or isinstance(problem, str)
    assert json.dumps(schema)
