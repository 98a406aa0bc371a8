"""The relay's AG-UI, validated against the published schema and read by the SDK's own client."""

import asyncio
import json
import os
import shutil
import subprocess
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from ag_ui.core import Event, RunAgentInput
from aiohttp import ClientSession, web
from pydantic import TypeAdapter

from konko_async import AsyncKonko
from konko_async.relay import RelayOptions, RelayService
from konko_async.relay.aiohttp_web import add_routes
from konko_async.sse import SSEDecoder
from konko_async.testing import Emulator, answer_from_prompt

MODEL = "codellama/codellama-13b-instruct"
MODULES = os.environ.get("KONKO_NODE_MODULES")
EVENT = TypeAdapter(Event)
TOOL = {
    "name": "add",
    "description": "Add two numbers.",
    "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
}


@asynccontextmanager
async def relaying():
    """Give the URL of a relay over the emulator."""
    async with Emulator(answer=answer_from_prompt) as server, AsyncKonko("k", server.base_url) as c:
        options = RelayOptions(models=[MODEL], params=["tools", "temperature"])
        app = web.Application()
        add_routes(app, RelayService(c, options, auth="open", host="127.0.0.1"))
        runner = web.AppRunner(app, shutdown_timeout=1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}/api/ag-ui"
        finally:
            await runner.cleanup()


@pytest.mark.parametrize("question", ["Say hello.", "What is add of 3?"])
async def test_events_are_those_of_the_published_schema(question):
    message = {"id": "1", "role": "user", "content": question}
    given = RunAgentInput(
        thread_id="t", run_id="r", messages=[message], tools=[TOOL], context=[], state={},
        forwarded_props={},
    )  # fmt: skip
    async with relaying() as url, ClientSession() as session:
        body = given.model_dump(mode="json", by_alias=True)
        async with session.post(url, json=body) as response:
            assert response.status == 200, await response.text()
            events = SSEDecoder().feed(await response.read())
    read = [EVENT.validate_json(event.data, strict=False) for event in events]
    assert [read[0].type, read[-1].type] == ["RUN_STARTED", "RUN_FINISHED"]
    for event in read:  # nothing that the schema has no name for
        assert not event.model_extra


@pytest.mark.skipif(
    MODULES is None or shutil.which("node") is None,
    reason="needs node, and @ag-ui/client in KONKO_NODE_MODULES: make ecosystem",
)
async def test_the_sdks_own_client_reads_it():
    script = str(Path(__file__).parent / "agent.mjs")
    async with relaying() as url:
        command = ["node", script, MODULES, url, "What is add of 3 and 4?", ""]
        done = await asyncio.to_thread(
            subprocess.run, command, capture_output=True, text=True, timeout=60, check=False
        )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for run in found["runs"]:
        assert run["error"] is None
        assert (run["kinds"][0], run["kinds"][-1]) == ("RUN_STARTED", "RUN_FINISHED")
    assert "TOOL_CALL_ARGS" in found["runs"][0]["kinds"]
    assert "TEXT_MESSAGE_CONTENT" in found["runs"][1]["kinds"]
    user, called, result, answer = found["messages"]
    function = called["toolCalls"][0]["function"]
    assert (function["name"], json.loads(function["arguments"])) == ("add", {"a": 3, "b": 4})
    assert (user["role"], result["content"]) == ("user", "7")
    assert answer["content"]
