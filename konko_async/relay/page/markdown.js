// Draws growing Markdown: what a model wrote becomes text nodes and a few kinds of elements, never
// HTML. Each call of draw() touches only the blocks that are still open, and of a long paragraph
// only its end.

import { Blocks } from "./blocks.js";
import { readInline, settledLength } from "./inline.js";

const STEP = 400; // characters that a paragraph grows by before its beginning is looked at again
const WINDOW = 4000; // characters looked at in one go
const PIECE = 64; // lines of code in one element, so that a new line does not lay out all others
const TAGS = { em: "EM", strong: "STRONG", del: "DEL", code: "CODE", break: "BR", link: "A" };

const make = (name, className) => {
  const element = document.createElement(name);
  if (className) element.className = className;
  return element;
};

// Inline nodes, put over the elements that are there.

function fill(element, node) {
  if (node.type === "code") element.textContent = node.text;
  if (node.type === "link") {
    element.href = node.href;
    element.target = "_blank";
    element.rel = "noopener noreferrer nofollow";
    // Where it leads, because a text can say anything.
    element.title = node.title ? `${node.title} – ${node.href}` : node.href;
    element.classList.toggle("picture", Boolean(node.image));
  }
  if (node.nodes) patch(element, 0, node.nodes);
}

function patch(parent, start, nodes) {
  let at = start;
  for (const node of nodes) {
    const there = parent.childNodes[at] ?? null;
    at += 1;
    if (node.type === "text") {
      if (there?.nodeType !== Node.TEXT_NODE) parent.insertBefore(document.createTextNode(node.text), there);
      else if (there.data !== node.text) grow(there, node.text);
      continue;
    }
    let element = there;
    if (there?.nodeName !== TAGS[node.type]) {
      element = make(TAGS[node.type]);
      if (there) parent.replaceChild(element, there);
      else parent.append(element);
    }
    fill(element, node);
  }
  while (parent.childNodes.length > at) parent.lastChild.remove();
  return at;
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

const inline = (text, growing) => flat(readInline(text, growing));

/** A line of text that grows: what can no longer change is drawn once. */
class Line {
  constructor(element) {
    this.element = element;
    this.settled = ""; // the text of the first `count` nodes
    this.count = 0;
    this.shown = null; // the text drawn last, and whether it was growing
  }

  show(text, growing) {
    if (this.shown?.text === text && this.shown.growing === growing) return;
    this.shown = { text, growing };
    if (!text.startsWith(this.settled)) [this.settled, this.count] = ["", 0];
    let width = WINDOW;
    while (text.length - this.settled.length > STEP) {
      const window = text.slice(this.settled.length, this.settled.length + width);
      const length = settledLength(window);
      if (!length && this.settled.length + width >= text.length) break;
      if (length) this.count = patch(this.element, this.count, inline(window.slice(0, length)));
      this.settled += window.slice(0, length);
      if (!length) width *= 2;
      else if (length < STEP && window.length < width) break;
    }
    patch(this.element, this.count, inline(text.slice(this.settled.length), growing));
    if (growing) return;
    this.element.normalize();
    [this.settled, this.count] = ["", 0];
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
    return { element, code, lang: node.lang, length: 0, lines: 0, piece: null };
  },
  table(node) {
    const element = make("div", "table");
    element.tabIndex = 0;
    element.setAttribute("role", "group");
    element.setAttribute("aria-label", "Table");
    const table = element.appendChild(make("table"));
    const head = table.appendChild(make("thead")).appendChild(make("tr"));
    node.head.forEach((text, column) => {
      const cell = head.appendChild(make("th", node.align[column]));
      cell.scope = "col";
      patch(cell, 0, inline(text));
    });
    return { element, body: table.appendChild(make("tbody")), done: 0 };
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
  heading: (view, node) => show(view, node.text, false),
  list: (view, node) => view.element.classList.toggle("loose", node.loose),
  item: () => {},
  quote: () => {},
  document: () => {},
  code(view, node) {
    let rest = node.text.slice(view.length);
    view.length = node.text.length;
    while (rest) {
      if (!view.piece || view.lines >= PIECE) {
        view.piece = view.code.appendChild(make("span")).appendChild(document.createTextNode(""));
        view.lines = 0;
      }
      const end = rest.indexOf("\n") + 1 || rest.length;
      view.piece.appendData(rest.slice(0, end));
      if (rest[end - 1] === "\n") view.lines += 1;
      rest = rest.slice(end);
    }
  },
  table(view, node, _, preview) {
    while (view.body.rows.length > node.rows.length) view.body.lastChild.remove();
    node.rows.slice(view.done).forEach((cells, index) => {
      const row = view.body.rows[view.done + index] ?? view.body.appendChild(make("tr"));
      node.align.forEach((align, column) => {
        const cell = row.cells[column] ?? row.appendChild(make("td", align));
        patch(cell, 0, inline(cells[column] ?? ""));
      });
    });
    view.done = Math.max(0, node.rows.length - (preview ? 1 : 0));
  },
};

function show(view, text, growing) {
  view.line ??= new Line(view.element);
  view.line.show(text, growing);
}

/** Markdown in an element, growing. */
export class Markdown {
  #blocks = new Blocks();
  #root;
  #dirty = false;
  #ended = false;

  constructor(element) {
    this.#root = { node: this.#blocks.root, element, kids: [], done: 0 };
  }

  /** Take more of the text; nothing is drawn yet. */
  write(text) {
    if (this.#ended) return;
    this.#blocks.write(text);
    this.#dirty = true;
  }

  /** Draw what has come. */
  draw() {
    if (!this.#dirty) return;
    this.#dirty = false;
    this.#blocks.preview(() => this.#update(this.#root, true));
    this.#settle();
  }

  /** Take the text's end, and draw the rest. */
  end() {
    if (this.#ended) return;
    this.#ended = true;
    this.#blocks.end();
    this.#update(this.#root, false);
  }

  #update(view, preview) {
    const { node } = view;
    UPDATE[node.type](view, node, view.item, preview);
    if (!node.children) return;
    view.kids ??= [];
    view.done ??= 0;
    for (let at = view.done; at < node.children.length; at += 1) {
      this.#update(this.#kid(view, node.children[at], at), preview);
    }
    for (const extra of view.kids.splice(node.children.length)) extra.element.remove();
  }

  #kid(view, child, at) {
    const there = view.kids[at];
    if (there && there.node.id === child.id && there.node.type === child.type && fits(there, child)) {
      there.node = child;
      return there;
    }
    const made = { ...DRAW[child.type](child), node: child };
    made.item = view.node.type === "item" && at === 0;
    if (there) there.element.replaceWith(made.element);
    else view.element.append(made.element);
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
