"""Files, images and addresses that go along with a question."""

import base64
import json
import ssl

import pytest
import trustme
from aiohttp import web
from cli_kit import CHAT_MODEL, run
from click import UsageError

from konko_async.cli.chat import attachments
from konko_async.cli.chat.attachments import attach, content_of
from konko_async.relay.aiohttp_web import listening

PNG = b"\x89PNG\r\n\x1a\n" + b"rest of it"
DATA = f"data:image/png;base64,{base64.b64encode(PNG).decode()}"


async def test_files_reach_the_server(env, emulator, tmp_path):
    (tmp_path / "a.md").write_text("# Notes\n\nTides.\n")
    (tmp_path / "picture.txt").write_bytes(PNG)  # names lie
    files = ["-f", str(tmp_path / "a.md"), "-f", str(tmp_path / "picture.txt")]
    env["KONKO_MODEL"] = CHAT_MODEL
    result = await run("chat", "What is this?", *files, "--json", env=env)
    assert result.code == 0, result.err
    assert json.loads(result.out)["choices"]
    text, image = emulator.requests[0].body["messages"][0]["content"]
    document = f'<document name="{tmp_path / "a.md"}">\n# Notes\n\nTides.\n</document>'
    assert text == {"type": "text", "text": f"What is this?\n\n{document}"}
    assert image == {"type": "image_url", "image_url": {"url": DATA}}


async def test_a_files_name_cannot_steer_the_terminal(env):
    result = await run("chat", "hi", "-m", "m", "-f", "no\x1b]0;x\x07\x9b2J", env=env)
    assert result.code == 2
    assert "cannot attach no" in result.err
    assert not {"\x1b", "\x07", "\x9b"} & set(result.err)


async def test_text_stays_text(tmp_path):
    (tmp_path / "page.html").write_text("<html><body><h1>Hi</h1><p>there</p></body></html>")
    content = content_of("Sum up:", await attach([str(tmp_path / "page.html")]))
    assert "# Hi" in content
    assert content.startswith("Sum up:\n\n<document")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (str, "does not exist"),
        (lambda path: path.mkdir(), "not a regular file"),
        (lambda path: path.write_bytes(b""), "is empty"),
        (lambda path: path.write_bytes(b"x" * 101), "larger than"),
        (lambda path: path.write_bytes(b"%PDF-1.4 no more"), "cannot attach"),
    ],
)
async def test_what_cannot_be_attached_is_named(make, said, tmp_path, monkeypatch):
    monkeypatch.setattr(attachments, "LARGEST", 100)
    make(tmp_path / "file")
    with pytest.raises(UsageError, match=said) as caught:
        await attach([str(tmp_path / "file")])
    assert str(tmp_path / "file") in caught.value.message


async def page(request):
    kind = request.match_info["kind"]
    if kind == "away":
        raise web.HTTPFound("/picture")
    if kind == "unsafe":
        raise web.HTTPFound("http://example.com/x")
    if kind == "round":
        raise web.HTTPFound("/round")
    if kind == "large":
        return web.Response(body=b"x" * 101)
    if kind == "picture":
        return web.Response(body=PNG)
    if kind == "page":
        return web.Response(text="<h1>Tides</h1>", content_type="text/html")
    raise web.HTTPNotFound


async def test_addresses_are_fetched(monkeypatch):
    monkeypatch.setattr(attachments, "LARGEST", 100)
    app = web.Application()
    app.router.add_get("/{kind}", page)
    async with listening(app) as port:
        url = f"http://127.0.0.1:{port}"
        assert (await attach([f"{url}/away"]))[0]["image_url"]["url"] == DATA
        (document,) = await attach([f"{url}/page"])
        assert document == f'<document name="{url}/page">\n# Tides\n</document>'
        for kind, said in (
            ("missing", "answered 404"),
            ("large", "larger than"),
            ("unsafe", "only https"),
            ("round", "more than 5 redirects"),
        ):
            with pytest.raises(UsageError, match=said):
                await attach([f"{url}/{kind}"])
    for wrong in ("http://example.com/x", "file:///etc/passwd", "http://", f"{url}/page"):
        with pytest.raises(UsageError, match="cannot attach"):
            await attach([wrong])


async def test_a_certificate_that_nobody_knows_is_refused():
    app = web.Application()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]
    with pytest.raises(UsageError, match="certificate"):
        await attach([f"https://127.0.0.1:{port}/x"])
    await runner.cleanup()
