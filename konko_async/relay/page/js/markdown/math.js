// Sets the formulas in what a model wrote: their source becomes MathML, by Temml, which is loaded when
// there is the first one. What it cannot set stays as it was written; and so does what would take long.

const LONGEST = 600; // characters of a formula
const DEEPEST = 12; // braces in braces, and what else nests
const MOST = 20_000; // characters of formulas in one text
const EACH = 16; // more that each formula counts for: its elements cost, too
const SHARE = 8; // ms of a frame
const OPTIONS = { throwOnError: true, strict: false, trust: false, maxExpand: 100, maxSize: [20, 20], colorIsTextColor: true };

let temml = null;
let loading = null;
const waiting = new Map(); // elements, and the source that they had
let planned = false;

/** A formula without its delimiters, and whether it stands by itself; null where it is not whole. */
function readFormula(source) {
  const block = source.startsWith("$$") || source.startsWith("\\[");
  const width = block || source.startsWith("\\(") ? 2 : 1;
  const end = { "$$": "$$", "\\[": "\\]", "\\(": "\\)" }[source.slice(0, 2)] ?? "$";
  if (source.length < 2 * width + 1 || !source.endsWith(end)) return null;
  return { tex: source.slice(width, -width), block };
}

/** Whether a formula nests deeper than is set; what it opens counts, closed or not. */
function isDeep(tex) {
  let depth = 0;
  for (const [mark] of tex.matchAll(/\\[{}]|[{}]|\\left\b|\\right\b|\\begin\b|\\end\b|\\[a-zA-Z]+|[\^_]/g)) {
    if (mark === "{" || mark === "\\left" || mark === "\\begin") depth += 1;
    else if (mark === "}" || mark === "\\right" || mark === "\\end") depth -= 1;
    if (depth > DEEPEST) return true;
  }
  return false;
}

/** The formulas of one text. */
export class Formulas {
  #left = MOST;
  #set = new WeakMap(); // elements, and the source that is set in them

  /** Show a formula's source; set it soon, if that may be. */
  show(element, source) {
    if (this.#set.get(element) === source) return;
    this.#set.delete(element);
    waiting.delete(element);
    const formula = readFormula(source);
    element.className = formula?.block ? "math block" : "math";
    element.removeAttribute("tabindex");
    element.removeAttribute("role");
    element.removeAttribute("aria-label");
    delete element.dataset.source;
    element.textContent = source;
    const cost = source.length + EACH;
    if (!formula || source.length > LONGEST || cost > this.#left || isDeep(formula.tex)) return;
    this.#left -= cost;
    this.#set.set(element, source);
    waiting.set(element, { source, ...formula });
    plan();
  }
}

function plan() {
  if (planned) return;
  planned = true;
  loading ??= import("../vendor/temml/temml.js").then((module) => { temml = module.default; });
  loading.then(() => requestAnimationFrame(work), () => {
    // It could not be loaded: the sources stay, and the next formula tries again.
    planned = false;
    loading = null;
    waiting.clear();
  });
}

/** Set what waits, for a part of a frame. */
function work() {
  planned = false;
  const begin = performance.now();
  for (const [element, formula] of waiting) {
    waiting.delete(element);
    set(element, formula);
    if (performance.now() - begin > SHARE) break;
  }
  if (waiting.size) plan();
}

function set(element, { source, tex, block }) {
  const place = document.createElement("span");
  try {
    temml.render(tex, place, { ...OPTIONS, displayMode: block });
  } catch {
    return;
  }
  const math = place.firstElementChild;
  if (math?.localName !== "math" || place.childElementCount !== 1) return;
  element.replaceChildren(math);
  element.dataset.source = source;
  if (!block) return;
  element.tabIndex = 0; // it may scroll
  element.setAttribute("role", "group");
  element.setAttribute("aria-label", "Formula");
}

const SET = ".math[data-source]";

/** What is selected and copied has the formulas as they were written: other programs can set them, too. */
document.addEventListener("copy", (event) => {
  const selection = getSelection();
  if (event.defaultPrevented || !event.clipboardData || selection.isCollapsed || !selection.rangeCount) return;
  const range = selection.getRangeAt(0).cloneRange();
  const within = (node) => (node.nodeType === Node.ELEMENT_NODE ? node : node.parentElement)?.closest(SET);
  const [first, last] = [within(range.startContainer), within(range.endContainer)];
  if (first) range.setStartBefore(first); // a part of a formula is none
  if (last) range.setEndAfter(last);
  const box = document.createElement("div");
  box.className = "prose copied";
  box.append(range.cloneContents());
  const formulas = box.querySelectorAll(SET);
  if (!formulas.length) return;
  for (const formula of formulas) formula.replaceWith(formula.dataset.source);
  document.body.append(box);
  event.clipboardData.setData("text/plain", box.innerText);
  event.clipboardData.setData("text/html", box.getHTML());
  box.remove();
  event.preventDefault();
});

/** Resolves once all formulas that wait are set. */
export async function formulasSet() {
  while (waiting.size) await new Promise(requestAnimationFrame);
}
