"""Code in colours, formulas, and footnotes."""

import pytest
from playwright.async_api import expect
from web_kit import slowness

from konko_async.testing import Answer

pytestmark = pytest.mark.asyncio(loop_scope="session")

LANGUAGES = (
    "sh c cpp cs css dart diff docker ex go hs html ini java js json jl kt tex lua make md pl php"
    " py r rb rs scala sql swift ts yaml"
)

READ = """
async ([name, text]) => {
    const { languageOf } = await import("/assets/js/highlight/languages.js");
    const language = languageOf(name);
    let mode;
    return text.split("\\n").map((line) => {
        const read = language.read(line, mode);
        mode = read.mode;
        return read.pieces.filter(([kind]) => kind).map(([kind, text]) => `${kind} ${text}`);
    });
}
"""

SEEN = [
    ("python", 'def f(x: int):  # why\n    """a\n    b"""\n    return True, 1.5e3, "c\\"d"', [
        ["keyword def", "call f", "type int", "comment # why"],
        ['text """a'],
        ['text     b"""'],
        ["keyword return", "value True", "number 1.5e3", 'text "c\\"d"'],
    ]),
    ("js", "const a = `x\n${y}`; // c\n/* d\ne */ f('g", [
        ["keyword const", "text `x"], ["text ${y}`", "comment // c"], ["comment /* d"], ["comment e */", "call f", "text 'g"],
    ]),
    ("rust", "fn f<'a>(x: &'a str) { println!('b') }", [
        ["keyword fn", "meta 'a", "meta 'a", "type str", "call println!", "text 'b'"],
    ]),
    ("html", "<!-- a\nb --><a href=\"c\">don't &amp;</a>", [
        ["comment <!-- a"], ["comment b -->", "keyword <a", "meta href", 'text "c"', "keyword >", "value &amp;", "keyword </a>"],
    ]),
    ("json", '{"a": [-1, "b", null]}', [['type "a"', "number -1", 'text "b"', "value null"]]),
    ("sh", 'curl -s http://a#b "$x" # c', [["call curl", "meta -s", 'text "$x"', "comment # c"]]),
    ("SQL", "select A from b -- c", [["keyword select", "keyword from", "comment -- c"]]),
    ("diff", "@@ -1 @@\n-a\n+b\n c", [["meta @@ -1 @@"], ["removed -a"], ["added +b"], []]),
    ("yaml", "- a: yes # b", [["type a", "value yes", "comment # b"]]),
    ("{.python", "x = None", [["value None"]]),
]  # fmt: skip


async def test_code_is_read_by_its_language(page, address):
    await page.page.goto(address)
    for name, text, seen in SEEN:
        assert await page.page.evaluate(READ, [name, text]) == seen, name


async def test_no_language_loses_a_character_or_takes_long(page, address):
    """Each with what could make a pattern try two ways; the whole of it within one frame each."""
    units = [
        "a", "a ", '"', "'", "\\", '"a\\', "#", "0.", "@a", "/*", "`", "<", "<a ", "-", "${", "$(", "[[",
        "--", "a(", '"""', "é", "🙂", "\t", "*", "**a", "&#", "'a", "#[", "::a", "a:", "a=", "{-", "%{",
    ]  # fmt: skip
    await page.page.goto(address)
    wrong = await page.page.evaluate(
        """async ([names, units, length, most]) => {
            const { languageOf } = await import("/assets/js/highlight/languages.js");
            const wrong = [];
            for (const name of names) {
                for (const unit of units) {
                    const text = unit.repeat(length / unit.length);
                    let best = Infinity;
                    for (let time = 0; time < 20 && best > most; time += 1) {
                        const begin = performance.now();
                        const { pieces } = languageOf(name).read(text);
                        best = Math.min(best, performance.now() - begin);
                        if (pieces.map(([, piece]) => piece).join("") !== text) wrong.push([name, unit]);
                    }
                    if (best > most) wrong.push([name, unit, best]);
                }
            }
            return wrong;
        }""",
        [LANGUAGES.split(), units, 1000, 10 * await slowness(page)],
    )
    assert wrong == []


async def test_code_is_coloured_as_it_grows_and_copied_as_it_is(page, address, upstream):
    code = "def f():\n    return 'x'  # " + "long " * 80 + "\n\nclass A"
    pieces = [code[at : at + 3] for at in range(0, len(code), 3)]
    upstream.push(Answer.stream(["```python\n", *pieces, "\n```\n"]))
    await page.open(address)
    await page.ask()
    await expect(page.answer()).to_have_attribute("data-state", "done")
    block = page.prose().locator("pre code")
    assert await block.evaluate("(code) => code.textContent") == code
    assert await block.locator(".hl-keyword").all_inner_texts() == ["def", "return", "class"]
    assert await block.locator(".hl-comment").count() == 1


FORMULAS = (
    r"Inline \(a_1^2 + \frac{b}{c}\), $x$ and **bold $y_i$**:"
    "\n\n"
    r"\[ \begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix} \]"
    "\n\n$$\\sum_{i=1}^{n} i$$\n\n"
    r"Not one: \(\nosuchthing{x}\), \(\href{https://a.example}{x}\), \(\class{tool}{x}\)."
)


async def test_formulas_are_set_and_copied_as_they_were_written(new_page, address, upstream):
    pieces = [FORMULAS[at : at + 5] for at in range(0, len(FORMULAS), 5)]
    upstream.push(Answer.stream(pieces))
    page = await new_page(permissions=["clipboard-read", "clipboard-write"])
    asked = []
    page.page.on("request", lambda request: asked.append(request.url))
    await page.open(address)
    assert not [url for url in asked if "temml" in url]  # not before there is a formula
    await page.ask()
    await expect(page.answer()).to_have_attribute("data-state", "done")
    await expect(page.prose().locator("math")).to_have_count(5)
    assert [url for url in asked if "temml" in url] == [f"{address}assets/js/vendor/temml/temml.js"]
    await expect(page.prose().locator("math mtable mtd")).to_have_count(4)
    await expect(page.prose().locator("math[display=block]")).to_have_count(2)
    # What cannot be set, or must not, is there as it was written.
    for source in (r"\(\nosuchthing{x}\)", r"\(\href{https://a.example}{x}\)"):
        await expect(page.prose().locator(".math", has_text=source)).to_be_visible()
    assert await page.prose().locator("a, .tool").count() == 0
    await page.prose().evaluate("(prose) => getSelection().selectAllChildren(prose)")
    await page.page.keyboard.press("Control+C")
    copied = await page.page.evaluate("navigator.clipboard.readText()")
    assert copied.split() == FORMULAS.replace("**", "").split()


async def test_a_formula_is_read_out_once(page, address, upstream):
    upstream.push(Answer.stream([r"So \(x^2\)."]))
    await page.open(address)
    await page.ask()
    await expect(page.prose().locator("math")).to_have_count(1)
    snapshot = "- paragraph:\n  - text: So\n  - math: x 2\n  - text: ."
    await expect(page.prose()).to_match_aria_snapshot(snapshot)


async def test_formulas_stay_text_where_the_library_cannot_be_loaded(page, address, upstream):
    await page.page.route("**/temml.js", lambda route: route.abort())
    upstream.push(Answer.stream([r"So \(x^2\)."]))
    await page.open(address)
    await page.ask()
    await expect(page.answer()).to_have_attribute("data-state", "done")
    await expect(page.prose()).to_have_text(r"So \(x^2\).")


NOTES = (
    "One[^1], two[^b], none[^c], `[^1]`, again[^1].\n\n"
    "[^1]: The *first*.\n\n    - with a list\n[^b]: The second,\nlazily.\n\nAfter."
)


async def test_footnotes_lead_there_and_back(page, address, upstream):
    pieces = [NOTES[at : at + 4] for at in range(0, len(NOTES), 4)]
    upstream.push(Answer.stream(pieces))
    await page.open(address)
    await page.ask()
    await expect(page.answer()).to_have_attribute("data-state", "done")
    prose = page.prose()
    await expect(prose.locator("p").first).to_have_text("One1, twob, none[^c], [^1], again1.")
    notes = prose.locator(".footnote-text")
    await expect(notes).to_have_count(2)
    await expect(notes.nth(0).locator("em, li")).to_have_text(["first", "with a list"])
    await expect(notes.nth(1)).to_have_text("The second,\nlazily.", use_inner_text=True)
    await expect(prose.locator("> p")).to_have_text(
        [await prose.locator("p").first.inner_text(), "After."]
    )
    await prose.get_by_role("button", name="Footnote b", exact=True).press("Enter")
    await expect(prose.get_by_role("note", name="Footnote b")).to_be_focused()
    await page.page.keyboard.press("Tab")
    await page.page.keyboard.press("Enter")
    await expect(prose.get_by_role("button", name="Footnote b", exact=True)).to_be_focused()
