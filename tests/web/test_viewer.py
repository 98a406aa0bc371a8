"""The viewer in a real browser: rows, search, charts, comparison, and what must never happen."""

import json
import sys
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from axe_playwright_python.async_playwright import Axe
from playwright.async_api import expect

from konko_async.viewer import Viewer

pytestmark = pytest.mark.asyncio(loop_scope="session")

NASTY = '<img src=x onerror="document.title=1"><script>document.title=2</script> ]]> &lt;b&gt;'
KEY = "0" * 32


def entry(number, text, *, error=None):
    body = {
        "model": NASTY,
        "choices": [{"message": {"content": text}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 1000, "completion_tokens": 2000},
    }
    response = {"status_code": 200, "request_id": "", "body": body, "latency": 1.5}
    return json.dumps(
        {
            "id": f"batch_req_{KEY}_{number}",
            "custom_id": f"id-{number}",
            "response": None if error else response,
            "error": {"code": error, "message": NASTY} if error else None,
        },
        separators=(",", ":"),
    )


def write(path, entries):
    path.write_text("".join(line + "\n" for line in entries))
    return path


@pytest.fixture
def output(tmp_path):
    rows = [entry(n, f"Answer {n} {NASTY}", error="bad_gateway" if n % 10 == 3 else None)
            for n in range(1000)]  # fmt: skip
    questions = [{"body": {"messages": [{"role": "user", "content": f"Question {n} {NASTY}"}]}}
                 for n in range(1000)]  # fmt: skip
    write(tmp_path / "in.jsonl", map(json.dumps, questions))
    return write(tmp_path / "out.jsonl", rows)


@pytest_asyncio.fixture(loop_scope="session")
async def open_viewer(new_context, output):
    """Open the page of an output."""
    viewers = []

    async def make(context_options=None, path=output, **options):
        viewer = Viewer(path, **options)
        await viewer.start()
        viewers.append(viewer)
        context = await new_context(**(context_options or {}))
        page = await context.new_page()
        await page.goto(viewer.address)
        await expect(page.locator(".row .name").first).to_be_visible()
        return page, viewer

    yield make
    for viewer in viewers:
        await viewer.close()


async def test_rows_details_and_keys(open_viewer, output):
    page, _ = await open_viewer(source=output.parent / "in.jsonl", price_in=1, price_out=2)
    await expect(page.locator("#counts")).to_have_text("1,000 rows, 100 failed")
    assert await page.locator(".row").count() < 80  # only what is seen
    await page.locator(".row").nth(1).click()
    detail = page.locator("#detail")
    await expect(detail).to_contain_text(f"Question 1 {NASTY}")
    await expect(detail).to_contain_text(f"Answer 1 {NASTY}")
    await expect(detail).to_contain_text("$0.0050")
    await expect(detail).to_contain_text("1.50 s")
    await page.locator("#list").focus()
    for key, name in (("ArrowDown", "id-2"), ("End", "id-999"), ("Home", "id-0")):
        await page.keyboard.press(key)
        await expect(detail.locator("h2").first).to_have_text(name)
    await page.keyboard.press("ArrowDown")
    await page.keyboard.press("ArrowDown")
    await page.keyboard.press("ArrowDown")
    await expect(detail.locator(".error")).to_have_text(f"bad_gateway: {NASTY}")
    assert await page.locator("img, #detail script").count() == 0
    assert await page.title() == "out.jsonl"


async def test_search_filter_and_export(open_viewer):
    page, _ = await open_viewer()
    await page.select_option("#filter", "failed")
    await expect(page.locator("#found")).to_have_text("100 rows")
    await expect(page.locator(".row").first).to_contain_text("id-3")
    await page.fill("#text", "ID-99")
    await expect(page.locator("#found")).to_have_text("1 rows")
    async with page.expect_download() as download:
        await page.click("#export")
    path = await (await download.value).path()
    (line,) = Path(path).read_text().splitlines()
    assert json.loads(line)["custom_id"] == "id-993"


async def test_an_output_that_grows_is_followed(open_viewer, output):
    page, _ = await open_viewer()
    with output.open("a") as file:
        file.write(entry(1000, "the newest") + "\n")
    await expect(page.locator("#counts")).to_have_text("1,001 rows, 100 failed")
    await page.locator("#list").focus()
    await page.keyboard.press("End")
    await expect(page.locator("#detail")).to_contain_text("the newest")


async def test_two_outputs_side_by_side(open_viewer, output, tmp_path):
    other = write(
        tmp_path / "other.jsonl", [entry(0, "Answer zero"), entry(1, f"Answer 1 {NASTY}")]
    )
    page, _ = await open_viewer(compare=other)
    await expect(page.locator(".row").first).to_contain_text("≠")
    await page.locator(".row").first.click()
    sides = page.locator(".side")
    await expect(sides).to_have_count(2)
    await expect(sides.nth(0).locator("ins").first).to_contain_text("0")
    await expect(sides.nth(1).locator("del").first).to_have_text("zero")
    await page.select_option("#filter", "different")
    await expect(page.locator("#found")).to_have_text("999 rows")


async def test_a_table_taller_than_an_element_can_be(open_viewer, tmp_path):
    count = 600_000  # 28 pixels each
    path = tmp_path / "long.jsonl"
    with path.open("w") as file:
        file.writelines(
            f'{{"custom_id":"n{n}","response":null,"error":null}}\n' for n in range(count)
        )
    page, _ = await open_viewer(path=path)
    await expect(page.locator("#counts")).to_have_text("600,000 rows, 0 failed")
    await page.locator("#list").focus()
    await page.keyboard.press("End")
    await expect(page.locator("#detail h2").first).to_have_text("n599999")
    await expect(page.locator(".row[aria-selected=true]")).to_be_in_viewport()


@pytest.mark.parametrize(("scheme", "width"), [("light", 1200), ("dark", 1200), ("light", 390)])
async def test_axe_finds_nothing(open_viewer, scheme, width):
    options = {"color_scheme": scheme, "viewport": {"width": width, "height": 800}}
    page, _ = await open_viewer(options)
    await page.locator(".row").nth(3).click()
    await expect(page.locator("#detail .error")).to_be_visible()
    results = await Axe().run(page)
    assert not results.response["violations"], results.generate_report()
    await page.click("#show-charts")
    await expect(page.locator(".bar").first).to_be_visible()
    results = await Axe().run(page)
    assert not results.response["violations"], results.generate_report()
    assert await page.evaluate("() => document.documentElement.scrollWidth <= innerWidth")


async def test_who_is_answered(output):
    async with Viewer(output) as viewer, aiohttp.ClientSession() as session:

        async def status(url, method="GET", **headers):
            async with session.request(method, url, headers=headers) as response:
                assert response.headers["Content-Security-Policy"].startswith("default-src 'none'")
                assert response.headers["Referrer-Policy"] == "no-referrer"
                return response.status

        address = viewer.address
        root = address.rsplit("/", 2)[0]
        assert address.startswith("http://127.0.0.1:")
        assert await status(address) == 200
        assert await status(address, Host="evil.example") == 421
        assert await status(address + "api/state", Host="evil.example") == 421
        assert await status(f"{root}/{'x' * 32}/") == 404
        assert await status(f"{root}/{'x' * 32}/api/export") == 404
        assert await status(address + "../../etc/passwd") == 404
        assert await status(address + "%2e%2e/%2e%2e/etc/passwd") == 404
        assert await status(address, "POST") == 405
        assert await status(address + "api/rows?first=x") == 400
        assert await status(address + "api/row?place=1001") == 400
        assert await status(address + "api/rows?filter=nope") == 400
        assert await status(address + "api/export?filter=nope") == 400
        assert await status(address + "api/nope") == 404


async def test_the_command_prints_where_the_page_is(output):
    import asyncio
    import signal

    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "konko_async", "view", str(output), "--no-open"),
        stdout=asyncio.subprocess.PIPE,
    )
    line = (await process.stdout.readline()).decode()
    address = line.split()[-1]
    async with aiohttp.ClientSession() as session, session.get(address + "api/state") as response:
        assert (await response.json())["files"][0]["rows"] > 0
    process.send_signal(signal.SIGTERM)
    await process.communicate()
    assert process.returncode == 0
