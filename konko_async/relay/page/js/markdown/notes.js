// Footnotes: a mark in the text becomes a button once its note is there, wherever that stands.

const MOST = 500; // marks of one note that become buttons

const make = (name, className, label, text) => {
  const element = document.createElement(name);
  element.className = className;
  element.textContent = text;
  if (name === "button") element.type = "button";
  if (label) element.setAttribute("aria-label", label);
  return element;
};

function goTo(element) {
  element.scrollIntoView({ block: "center" });
  element.focus({ preventScroll: true });
}

/** The footnotes of one text. */
export class Notes {
  #notes = new Map(); // elements by label
  #marks = new Map(); // sets of elements by label
  #labels = new WeakMap(); // what a mark says now

  /** Show a mark; what has no note stays as it was written. */
  mark(element, label) {
    if (this.#labels.get(element) === label) return;
    this.#labels.set(element, label);
    element.className = "note";
    element.textContent = `[^${label}]`;
    if (!this.#marks.has(label)) this.#marks.set(label, new Set());
    const marks = this.#marks.get(label);
    if (marks.size >= MOST) return;
    marks.add(element);
    if (this.#notes.has(label)) this.#link(element, label);
  }

  /** Make the element of a note; returns it, and where its blocks are to be. */
  note(label) {
    const element = make("div", "footnote", `Footnote ${label}`, "");
    element.setAttribute("role", "note");
    element.tabIndex = -1;
    const inside = make("div", "footnote-text", null, "");
    const back = make("button", "footnote-back", `Back to the mark of footnote ${label}`, "↩");
    back.addEventListener("click", () => {
      const mark = this.#current(label).find((one) => one.isConnected);
      if (mark) goTo(mark.firstElementChild);
    });
    element.append(make("span", "footnote-label", null, label), inside, back);
    const first = !this.#notes.has(label);
    if (first || !this.#notes.get(label).isConnected) this.#notes.set(label, element);
    if (first) for (const mark of this.#current(label)) this.#link(mark, label);
    return { element, inside };
  }

  #current(label) {
    return [...this.#marks.get(label) ?? []].filter((mark) => this.#labels.get(mark) === label);
  }

  #link(element, label) {
    const button = make("button", "note-mark", `Footnote ${label}`, label);
    button.addEventListener("click", () => goTo(this.#notes.get(label)));
    element.className = "note linked";
    element.replaceChildren(button);
  }
}
