"""The page's Markdown: the same however it is cut, the same as a reference, and never alive."""

import json

import pytest
import pytest_asyncio
from bs4 import BeautifulSoup
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from markdown_kit import DOCUMENTS, INLINE_PIECES, PIECES, SAMPLES, actual, expected
from web_kit import slowness

pytestmark = pytest.mark.asyncio(loop_scope="session")
# What `@settings` names replaces what the profile says.
NO_CHECKS = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]

# Render a text in pieces that end at `cuts`, drawn after each; without cuts, in one.
RENDER = """
async ([text, cuts]) => {
    const { Markdown } = await import("/assets/markdown.js");
    const render = (cuts) => {
        const element = document.createElement("div");
        const markdown = new Markdown(element);
        let start = 0;
        for (const end of cuts) {
            markdown.write(text.slice(start, end));
            markdown.draw();
            start = end;
        }
        markdown.write(text.slice(start));
        markdown.end();
        element.normalize();
        return element.innerHTML;
    };
    if (cuts === "every") {
        const whole = render([]);
        const different = [];
        for (let at = 1; at < text.length; at += 1) if (render([at]) !== whole) different.push(at);
        if (render(Array.from(text.slice(1), (_, at) => at + 1)) !== whole) different.push("each");
        return { whole, different };
    }
    return { whole: render([]), cut: render(cuts) };
}
"""


@pytest_asyncio.fixture(loop_scope="session")
async def render(page, address):
    await page.page.goto(address)

    async def call(text, cuts):
        return await page.page.evaluate(RENDER, [text, cuts])

    return call


async def test_any_cut_makes_the_same(render):
    for text in SAMPLES:
        result = await render(text, "every")
        assert not result["different"], (text, result)


async def test_documents_in_pieces_make_the_same(render):
    for text in DOCUMENTS:
        result = await render(text[:6000], list(range(7, min(len(text), 6000), 7)))
        assert result["cut"] == result["whole"]


@settings(max_examples=100, deadline=None, suppress_health_check=NO_CHECKS)
@given(
    pieces=st.lists(st.sampled_from(PIECES), max_size=30),
    cuts=st.lists(st.integers(0, 200), max_size=12),
)
async def test_any_text_cut_anywhere_makes_the_same(render, pieces, cuts):
    text = "".join(pieces)
    result = await render(text, sorted({cut for cut in cuts if cut < len(text)}))
    assert result["cut"] == result["whole"], json.dumps(text)


# What is said to be settled at a text's beginning reads the same, whatever comes after it.
SETTLED = """
async ([text, at]) => {
    const { readInline, settle } = await import("/assets/js/markdown/inline.js");
    const settled = settle(text.slice(0, at));
    const plain = (nodes) => JSON.stringify(
        nodes.reduce((out, node) => {
            const { start, end, bracket, active, ...rest } = node;
            if (node.nodes) rest.nodes = plain(node.nodes);
            const last = out.at(-1);
            if (last?.type === "text" && rest.type === "text") last.text += rest.text;
            else out.push(rest);
            return out;
        }, []),
    );
    const parts = [...readInline(text, { to: settled.from }), ...readInline(text, settled)];
    return { length: settled.from, whole: plain(readInline(text)), parts: plain(parts) };
}
"""


@settings(max_examples=120, deadline=None, suppress_health_check=NO_CHECKS)
@given(
    pieces=st.lists(st.sampled_from(INLINE_PIECES), min_size=1, max_size=25), share=st.floats(0, 1)
)
@example(pieces=["[a *b](http://a.b) c*"], share=0.28)  # cut between "]" and "("
async def test_what_is_settled_stays(page, address, pieces, share):
    text = "".join(pieces)
    if not page.page.url.startswith(address):
        await page.page.goto(address)
    result = await page.page.evaluate(SETTLED, [text, round(share * len(text))])
    assert result["parts"] == result["whole"], json.dumps([text, result["length"]])


async def test_it_reads_as_the_reference_does(render):
    wrong = []
    for text in SAMPLES:
        result = await render(text, [])
        if actual(result["whole"]) != expected(text):
            wrong.append((text, actual(result["whole"]), expected(text)))
    assert not wrong, "\n".join(map(repr, wrong))


async def test_documents_read_as_the_reference_does(render):
    for text in DOCUMENTS:
        # Bare addresses and inner links are ours to treat otherwise.
        result = await render(text, [])
        assert actual(result["whole"]) == expected(text)


# Draw a long text in small pieces; which of the finished blocks change, and how long it takes.
GROW = """
async ([text, size]) => {
    const { Markdown } = await import("/assets/markdown.js");
    const element = document.getElementById("turns");
    const markdown = new Markdown(element);
    const observer = new MutationObserver(() => {});
    observer.observe(element, { subtree: true, childList: true, characterData: true, attributes: true });
    const times = [];
    let touched = 0;
    for (let at = 0; at < text.length; at += size) {
        // A paragraph's last line may become a table, so the last two are still open.
        const finished = new Set([...element.children].slice(0, -2));
        markdown.write(text.slice(at, at + size));
        const begin = performance.now();
        markdown.draw();
        times.push(performance.now() - begin);
        for (const record of observer.takeRecords()) {
            let block = record.target;
            while (block !== element && block.parentNode !== element && block.parentNode) block = block.parentNode;
            if (finished.has(block)) touched += 1;
        }
    }
    markdown.end();
    const median = (some) => some.sort((a, b) => a - b)[Math.floor(some.length / 2)];
    const quarter = Math.floor(times.length / 4);
    return { touched, first: median(times.slice(0, quarter)), last: median(times.slice(-quarter)), blocks: element.children.length };
}
"""


async def test_a_long_answer_is_not_drawn_again(page, address):
    text = ("\n\n".join([*DOCUMENTS, *SAMPLES]) * 3)[:200_000]
    await page.page.goto(address)
    result = await page.page.evaluate(GROW, [text, 40])
    assert result["blocks"] > 500
    assert result["touched"] == 0
    assert result["last"] < 5 * result["first"] + 1 * await slowness(page)  # ms


async def test_a_long_paragraph_is_drawn_again_at_its_end_only(page, address):
    # With what seems to open something, and never closes it.
    text = ("Some *words* and `code`, [more](http://a.example) **of it. " * 1000)[:50_000]
    await page.page.goto(address)
    result = await page.page.evaluate(GROW, [text, 40])
    assert result["last"] < 5 * result["first"] + 3 * await slowness(page)  # ms


async def test_what_a_reader_has_selected_stays_selected(page, address):
    await page.page.goto(address)
    selected = await page.page.evaluate(
        """async () => {
            const { Markdown } = await import("/assets/markdown.js");
            const element = document.getElementById("turns");
            const markdown = new Markdown(element);
            markdown.write("First paragraph.\\n\\nSecond **bold** words ");
            markdown.draw();
            getSelection().setBaseAndExtent(element.firstChild.firstChild, 6, element.lastChild.lastChild, 4);
            for (const piece of ["and ", "more", " of *it*.\\n", "\\nThird", " paragraph\\n\\n- x"]) {
                markdown.write(piece);
                markdown.draw();
            }
            markdown.end();
            return getSelection().toString();
        }"""
    )
    assert selected.split() == ["paragraph.", "Second", "bold", "wor"]


FORMULAS = [
    r"\(a_1*b_2*c\)", r"\[ \frac{a}{b} \\ [x]_y \]", "$$\n\\sum_{i=1}^{n} x_i\n$$", "$a_1 * b_2 * c_1$", r"$\alpha$", "$$x^2$$",
]  # fmt: skip


async def test_formulas_keep_their_marks_and_backslashes(render):
    """What is selected and copied can be given to a program that sets mathematics."""
    for formula in FORMULAS:
        text = f"Before *it* {formula} after _it_."
        result = await render(text, "every")
        assert not result["different"], text
        shown = BeautifulSoup(result["whole"], "lxml")
        assert [math.get_text() for math in shown.select("span.math")] == [formula]
        assert [em.get_text() for em in shown.select("em")] == ["it", "it"]


@pytest.mark.parametrize(
    "text",
    [
        "$5 and $10",
        "a $ b $ c",
        r"\(*a*",
        r"\[*a*",
        "$*a*",
        "`$a$`",
        r"\$a\$",
        "$$",
        r"\(\)",
        r"\[\]",
        "$ a$",
    ],
)
async def test_what_is_no_formula(render, text):
    result = await render(text, "every")
    assert not result["different"]
    assert "math" not in result["whole"]
    assert actual(result["whole"]) == expected(text)
