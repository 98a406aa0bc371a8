"""The direct way through aiohttp's insides: recognised, switched off, or given up with a warning."""

import asyncio
import logging
import subprocess
import sys

import aiohttp
import pytest
from aiohttp import client_proto, client_reqrep
from client_kit import ASK, KEY, ask, make_client, pooled, serving, text_of

from konko_async import APITimeoutError, AsyncKonko, Timeout
from konko_async._http import aiohttp_internals
from konko_async._http.aiohttp_internals import HookedConnector
from konko_async._http.aiohttp_probe import Known, probe
from konko_async._http.session import _SessionAnswer
from konko_async.testing import Answer, Emulator, FaultServer

STREAM = Answer.stream(["Hel", "lo"])
WHOLE = Answer.whole("Hello")


@pytest.fixture
def probed(monkeypatch):
    """What the probe says of an aiohttp that is changed meanwhile; it forgets it afterwards."""
    probe.cache_clear()
    yield monkeypatch
    monkeypatch.undo()
    probe.cache_clear()


def learned(self, data, size=0):
    """A feed_data() that does something which ours does not do."""
    self._ledger.enter(data)


class OtherKey(tuple):
    __slots__ = ()
    _fields = ("host", "port", "tls")


def reset(self):
    """A method that was given another meaning."""
    self._something_new = True


CHANGES = {
    "a method learned something": (aiohttp.StreamReader, "feed_data", learned),
    "a method of the protocol did": (client_proto.ResponseHandler, "close", reset),
    "the pool is used otherwise": (aiohttp.TCPConnector, "_get", learned),
    "a class has gone": (client_reqrep, "ConnectionKey", None),
    "a class has other fields": (client_reqrep, "ConnectionKey", OtherKey),
    "a method has gone": (client_proto.ResponseHandler, "set_response_params", None),
    "the head is read otherwise": (client_proto.ResponseHandler, "data_received", learned),
    "the limits have gone": (aiohttp_internals, "READ_PARAMS", {"read_until_eof": True}),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_noticed_and_reported_once(name, probed, caplog):
    owner, attribute, value = CHANGES[name]
    probed.setattr(owner, attribute, value)
    for _ in range(3):
        known = probe()
    assert known.connector
    assert not known.channel
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert aiohttp.__version__ in record.getMessage()
    assert known.missing in record.getMessage()
    assert "KONKO_ASYNC_FAST_PATH=0" in record.getMessage()


def test_what_is_known_is_not_warned_of(probed, caplog):
    assert probe().channel
    assert not caplog.records


def other_signature(self, request):
    raise AssertionError("never called")


@pytest.mark.parametrize("name", ["connect", "_create_connection"])
def test_a_connector_with_other_methods_is_noticed(name, probed):
    probed.setattr(aiohttp.TCPConnector, name, other_signature)
    assert not probe().connector
    assert not probe().channel
    assert f"TCPConnector.{name}(self, request)" in probe().missing


@pytest.fixture(params=["channel", "connector"])
def unknown(request, monkeypatch):
    """An aiohttp of which something is not recognised."""
    known = {"channel": (None, "it changed"), "connector": ("it changed", None)}[request.param]
    monkeypatch.setattr("konko_async._http.session.probe", lambda: Known(*known))
    return request.param


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
async def test_where_it_is_unknown_aiohttps_own_way_serves(stream, unknown):
    server = FaultServer(STREAM if stream else WHOLE)
    async with serving(server) as client:
        assert client.pool.fast_path is False
        for _ in range(2):
            assert text_of(await ask(client, stream=stream)) == "Hello"
        assert server.connections.opened == 1
        assert pooled(client) == (1, 0)
        connector = client._engine.transport._session.connector
        assert isinstance(connector, HookedConnector) is (unknown == "channel")
        assert (client.pool.idle, client.pool.in_use) == (1, 0)


async def test_the_connect_timeout_holds_there_too(unknown):
    async def never_answer(_reader, writer):
        await gone.wait()
        writer.close()

    gone = asyncio.Event()
    server = await asyncio.start_server(never_answer, "127.0.0.1", 0)
    url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    async with AsyncKonko(KEY, url, retry=None, timeout=Timeout(connect=0.05)) as client:
        with pytest.raises(APITimeoutError) as caught:
            await ask(client, stream=False)
        assert caught.value.phase == "connect"
    gone.set()
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize("value", ["1", "0", "false", "no", "", "yes"])
async def test_the_environment_chooses(value, monkeypatch):
    monkeypatch.setenv("KONKO_ASYNC_FAST_PATH", value)
    direct = value in {"1", "", "yes"}
    async with Emulator() as server, make_client(server) as client:
        assert client.pool.fast_path is direct  # before anything was sent
        stream = await client.chat.completions.create(**ASK, stream=True)
        assert isinstance(stream._reader._answer, _SessionAnswer) is not direct
        await stream.completion()


async def test_a_session_of_the_users_is_aiohttps_way():
    async with (
        aiohttp.ClientSession() as session,
        Emulator() as server,
        make_client(server, session=session) as client,
    ):
        assert client.pool.fast_path is False
        await ask(client, stream=False)


def test_without_the_class_of_connections_the_package_can_still_be_imported():
    """In a process of its own: the class is looked up when the module is loaded."""
    script = """if True:
        from aiohttp import client_proto
        del client_proto.ResponseHandler
        import konko_async
        from konko_async._http.aiohttp_probe import probe
        known = probe()
        print(known.channel, known.missing)
    """
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("False ")
    assert "not one that konko_async knows the insides of" in done.stderr
