// Draws growing Markdown: what a model wrote becomes text nodes and a few kinds of elements, never
// HTML. Each call of draw() touches only the blocks that are still open, and of a long paragraph
// only its end.

import { Blocks } from "./blocks.js";
import { Code } from "./code.js";
import { readInline, settle } from "./inline.js";
import { Formulas } from "./math.js";
import { Notes } from "./notes.js";

const STEP = 400; // characters that a text grows by before its beginning is looked at again
const SHARE = 64; // what has come is drawn once it is this part of what has to be read again for it
const CHEAPER = 32; // times, measured
const MOST_EMPTY = 2000; // cells that a table's short rows are filled up with
const TAGS = { em: "EM", strong: "STRONG", del: "DEL", code: "CODE", math: "SPAN", note: "SUP", break: "BR", link: "A" };

const make = (name, className) => {
  const element = document.createElement(name);
  if (className) element.className = className;
  return element;
};

// Inline nodes, put over the elements that are there.

function fill(element, node, shared) {
  if (node.type === "code") element.textContent = node.text;
  if (node.type === "math") shared.formulas.show(element, node.text);
  if (node.type === "note") shared.notes.mark(element, node.text);
  if (node.type === "link") {
    element.href = node.href;
    element.target = "_blank";
    element.rel = "noopener noreferrer nofollow";
    // Where it leads, because a text can say anything.
    element.title = node.title ? `${node.title} – ${node.href}` : node.href;
    element.classList.toggle("picture", Boolean(node.image));
  }
  if (node.nodes) patch(element, element.firstChild, node.nodes, shared);
}

/** Make the children of `parent`, from `first` on, look like `nodes`; returns the last of them. */
function patch(parent, first, nodes, shared) {
  let next = first;
  let last = first ? first.previousSibling : parent.lastChild;
  for (const node of nodes) {
    const there = next;
    if (node.type === "text") {
      if (there?.nodeType !== Node.TEXT_NODE) last = parent.insertBefore(document.createTextNode(node.text), there);
      else {
        if (there.data !== node.text) grow(there, node.text);
        last = there;
        next = there.nextSibling;
      }
      continue;
    }
    let element = there;
    if (there?.nodeName !== TAGS[node.type]) {
      element = make(TAGS[node.type]);
      if (there) parent.replaceChild(element, there);
      else parent.append(element);
    }
    fill(element, node, shared);
    last = element;
    next = element.nextSibling;
  }
  while (next) {
    const extra = next;
    next = next.nextSibling;
    extra.remove();
  }
  return last;
}

/** Change a text node; only append where that is all there is to do, to keep a selection. */
function grow(textNode, text) {
  if (text.startsWith(textNode.data)) textNode.appendData(text.slice(textNode.data.length));
  else textNode.data = text;
}

/** Links that lead nowhere we would go become what they said. */
function flat(nodes) {
  return nodes.flatMap((node) => {
    if (node.type === "link" && !node.href) return flat(node.nodes);
    if (node.type === "link" && node.image && !node.nodes.length) {
      return [{ ...node, nodes: [{ type: "text", text: node.href }] }];
    }
    return [node.nodes ? { ...node, nodes: flat(node.nodes) } : node];
  });
}

const inline = (text, options) => flat(readInline(text, options));

/** Whether two nodes look the same. */
function isSame(one, other) {
  if (one.type !== other.type || one.text !== other.text || one.href !== other.href) return false;
  if (one.title !== other.title || one.image !== other.image) return false;
  if (!one.nodes) return true;
  return one.nodes.length === other.nodes.length && one.nodes.every((node, at) => isSame(node, other.nodes[at]));
}

/** A line of text that grows: what can no longer change is drawn once. */
class Line {
  #settled = { from: 0, barred: 0 }; // from where on it is read again
  #before = ""; // the text up to there
  #last = null; // what was drawn last of that
  #nodes = []; // what was drawn behind it
  #tried = 0; // length of the text when it was last looked for what is settled
  #shown = null; // the text drawn last, and whether it was growing

  constructor(element, shared) {
    this.element = element;
    this.shared = shared; // what the lines of one text share: its formulas and footnotes
  }

  /** How many characters are read again for each that comes; to copy and compare one is cheaper. */
  get open() {
    if (!this.#shown?.growing) return 0;
    const { length } = this.#shown.text;
    return length - this.#settled.from + length / CHEAPER;
  }

  show(text, growing) {
    if (this.#shown?.text === text && this.#shown.growing === growing) return;
    this.#shown = { text, growing };
    // Not startsWith(), which compares a long text character by character.
    if (text.slice(0, this.#before.length) !== this.#before) this.#forget();
    if (text.length < this.#tried) this.#tried = 0;
    if (text.length - this.#settled.from > STEP && text.length - this.#tried > STEP / 2) this.#settle(text);
    this.#draw(inline(text, { ...this.#settled, growing }));
    if (growing) return;
    this.element.normalize();
    this.#forget();
  }

  #forget() {
    this.#settled = { from: 0, barred: 0 };
    this.#before = "";
    this.#tried = 0;
    this.#last = null;
    this.#nodes = [];
  }

  #settle(text) {
    this.#tried = text.length;
    const settled = settle(text, this.#settled);
    if (settled.from <= this.#settled.from) return;
    this.#last = this.#draw(inline(text, { ...this.#settled, to: settled.from }));
    this.#nodes = [];
    this.#settled = settled;
    this.#before = text.slice(0, settled.from);
  }

  /** Draw the nodes behind the settled ones; those that are there already stay. Returns the last. */
  #draw(nodes) {
    let first = this.#last ? this.#last.nextSibling : this.element.firstChild;
    let same = 0;
    while (same < nodes.length && same < this.#nodes.length && isSame(nodes[same], this.#nodes[same])) {
      first = first.nextSibling;
      same += 1;
    }
    this.#nodes = nodes;
    return patch(this.element, first, nodes.slice(same), this.shared);
  }
}

// Blocks. A view is {node, element, inside?, line?, kids?, ...} for one of them.

const DRAW = {
  document: () => ({}),
  quote: () => ({ element: make("blockquote") }),
  rule: () => ({ element: make("hr") }),
  paragraph: () => ({ element: make("p") }),
  // The page's own headings are of levels 1 and 2.
  heading: (node) => ({ element: make(`h${Math.min(node.level + 2, 6)}`, `level-${node.level}`) }),
  item: () => ({ element: make("li") }),
  list(node) {
    const element = make(node.ordered ? "ol" : "ul");
    if (node.ordered && node.start !== 1) element.start = node.start;
    return { element };
  },
  code(node) {
    const element = make("div", "code");
    const head = element.appendChild(make("div", "code-head"));
    head.appendChild(make("span", "lang")).textContent = node.lang || "text";
    const button = head.appendChild(make("button", "copy-code"));
    button.type = "button";
    button.textContent = "Copy";
    button.setAttribute("aria-label", "Copy this code");
    const pre = element.appendChild(make("pre"));
    pre.tabIndex = 0;
    pre.setAttribute("role", "group");
    pre.setAttribute("aria-label", node.lang ? `Code, ${node.lang}` : "Code");
    const code = pre.appendChild(make("code"));
    return { element, code: new Code(code, node.lang), lang: node.lang, length: 0 };
  },
  footnote: (node, shared) => shared.notes.note(node.label),
  table(node, shared) {
    const element = make("div", "table");
    element.tabIndex = 0;
    element.setAttribute("role", "group");
    element.setAttribute("aria-label", "Table");
    const table = element.appendChild(make("table"));
    const head = table.appendChild(make("thead")).appendChild(make("tr"));
    node.head.forEach((text, column) => {
      const cell = head.appendChild(make("th", node.align[column]));
      cell.scope = "col";
      new Line(cell, shared).show(text, false);
    });
    return { element, body: table.appendChild(make("tbody")), rows: [], done: 0, empty: 0, last: [], shared };
  },
};

const UPDATE = {
  rule: () => {},
  paragraph(view, node, item) {
    let { text } = node;
    if (!node.closed) {
      // It may be the head of a table; the next line will tell.
      const at = text.lastIndexOf("\n") + 1;
      if (text.startsWith("|", at)) text = text.slice(0, at);
    }
    if (item) text = text.replace(/^\[([ xX])\](?=\s)/, (_, mark) => (mark === " " ? "☐" : "☑"));
    show(view, text.trimEnd(), !node.closed);
  },
  heading: (view, node) => show(view, node.text, node.partial),
  list: (view, node) => view.element.classList.toggle("loose", node.loose),
  item: () => {},
  quote: () => {},
  footnote: () => {},
  document: () => {},
  code(view, node) {
    view.code.write(node.text.slice(view.length));
    view.length = node.text.length;
    if (node.closed) view.code.end();
  },
  table(view, node) {
    const whole = node.rows.length - (node.partial ? 1 : 0);
    while (view.rows.length > node.rows.length) {
      view.rows.pop().remove();
      view.last = [];
    }
    for (let at = view.done; at < node.rows.length; at += 1) {
      if (at > view.done || at >= view.rows.length) view.last = [];
      view.rows[at] ??= view.body.appendChild(make("tr"));
      drawRow(view, view.rows[at], node, at);
    }
    view.done = whole;
  },
};

function drawRow(view, row, { align, rows, partial }, at) {
  const cells = rows[at];
  const growing = partial && at === rows.length - 1;
  const missing = align.length - cells.length;
  const filled = view.empty + missing <= MOST_EMPTY;
  if (!growing) view.empty += missing;
  for (let column = 0; column < (filled ? align.length : cells.length); column += 1) {
    view.last[column] ??= new Line(row.appendChild(make("td", align[column])), view.shared);
    view.last[column].show(cells[column] ?? "", growing && column === cells.length - 1);
  }
}

function show(view, text, growing) {
  view.line ??= new Line(view.element, view.shared);
  view.line.show(text, growing);
}

/** Markdown in an element, growing. */
export class Markdown {
  #blocks = new Blocks();
  #root;
  #waiting = 0; // characters that are not drawn
  #open = 0; // characters that the last draw had to read again
  #ended = false;
  #shared = { formulas: new Formulas(), notes: new Notes() };

  constructor(element) {
    this.#root = { node: this.#blocks.root, element, kids: [], done: 0 };
  }

  /** Take more of the text; nothing is drawn yet. */
  write(text) {
    if (this.#ended) return;
    this.#blocks.write(text);
    this.#waiting += text.length;
  }

  /**
   * Draw what has come; returns whether all of it is drawn. A long line has to be read again for each
   * token: what is little beside it waits for more, unless `now`, so that the time stays linear.
   */
  draw(now = false) {
    if (!this.#waiting) return true;
    const again = Math.max(this.#blocks.partialLength, this.#open);
    if (!now && this.#waiting * SHARE < again) return false;
    this.#waiting = 0;
    this.#open = 0;
    this.#blocks.preview(() => this.#update(this.#root));
    this.#settle();
    return true;
  }

  /** Take the text's end, and draw the rest. */
  end() {
    if (this.#ended) return;
    this.#ended = true;
    this.#blocks.end();
    this.#update(this.#root);
  }

  #update(view) {
    const { node } = view;
    UPDATE[node.type](view, node, view.item);
    for (const line of view.line ? [view.line] : view.last ?? []) this.#open = Math.max(this.#open, line.open);
    if (!node.children) return;
    view.kids ??= [];
    view.done ??= 0;
    for (let at = view.done; at < node.children.length; at += 1) {
      this.#update(this.#kid(view, node.children[at], at));
    }
    for (const extra of view.kids.splice(node.children.length)) extra.element.remove();
  }

  #kid(view, child, at) {
    const there = view.kids[at];
    if (there && there.node.id === child.id && there.node.type === child.type && fits(there, child)) {
      there.node = child;
      return there;
    }
    const made = { ...DRAW[child.type](child, this.#shared), node: child, shared: this.#shared };
    made.item = view.node.type === "item" && at === 0;
    if (there) there.element.replaceWith(made.element);
    else (view.inside ?? view.element).append(made.element);
    view.kids[at] = made;
    return made;
  }

  /** The blocks that are closed for good are not looked at again. */
  #settle() {
    let view = this.#root;
    while (view?.kids) {
      const { children } = view.node;
      const closed = children.length - (children.at(-1)?.closed === false ? 1 : 0);
      view.done = Math.min(closed, view.kids.length);
      view = view.kids[view.done];
    }
  }
}

/** Whether a view that was drawn for a line's preview is of the kind that the line now makes. */
function fits(view, node) {
  const { element } = view;
  if (node.type === "code") return view.length <= node.text.length && view.lang === node.lang;
  if (node.type === "heading") return element.className === `level-${node.level}`;
  if (node.type === "list") return element.tagName === (node.ordered ? "OL" : "UL") && (element.start ?? 1) === node.start;
  return true;
}
