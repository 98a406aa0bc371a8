// Markdown's blocks, line by line: text in, a tree out. Knows nothing of the page.
//
// CommonMark's algorithm for what models write: headings, lists, quotes, code, tables (GFM), rules.
// Footnotes as GitHub has them. HTML and reference links are text. A finished block never changes again, so a reader that
// draws the tree needs to look only at the path of blocks that are still open.

const DEEPEST = 24; // containers in containers; more is text
const FENCE = /^(?:(`{3,})([^`]*)|(~{3,})(.*))$/;
const RULE = /^(?:(?:\*[ \t]*){3,}|(?:-[ \t]*){3,}|(?:_[ \t]*){3,})$/;
const HEADING = /^(#{1,6})(?:[ \t]+(.*))?$/;
const BULLET = /^([-+*])(?=[ \t]|$)/;
const NUMBER = /^(\d{1,9})([.)])(?=[ \t]|$)/;
const NOTE = /^\[\^([^\s[\]]{1,40})\]:/;
const BARS = /\||\\[^]/g;
const NOTE_INDENT = 4; // of a footnote's further lines
const LONG = 200; // characters; no rule, underline or list of markers is so long
const MOST_COLUMNS = 128; // more are no table: its rows would be filled up to as many cells
// The beginning of a line, behind its white space, that may become any of several things.
const UNDECIDED = /^(?:[-+*_=#>`~|: \t]*|\d{1,9}[.)]?[ \t]*|\[(?:\^[^\s[\]]{0,40}\]?:?)?[ \t]*|(?:```|~~~).*)$/;
const MARKER = /[ \t]*(?:>|[-+*]|\d{1,9}[.)])[ \t]+/y;

// No pattern here may try two ways over the same white space: a line can be all of an answer.

const isBlank = (text) => !/\S/.test(text);

function indentOf(text) {
  let at = 0;
  while (text.charCodeAt(at) === 32) at += 1;
  return at;
}

/** A heading's text without the marks that may close it. */
function titleOf(text) {
  const title = text.trim();
  let end = title.length;
  while (title[end - 1] === "#") end -= 1;
  if (end === title.length) return title;
  return end === 0 || /[ \t]/.test(title[end - 1]) ? title.slice(0, end).trimEnd() : title;
}

/** Replace the tabs of the leading white space by spaces, for text that begins at `column`. */
function expand(text, column) {
  const space = /^[ \t]*/.exec(text)[0];
  if (!space.includes("\t")) return text;
  let width = column;
  for (const character of space) width += character === "\t" ? 4 - (width % 4) : 1;
  return " ".repeat(width - column) + text.slice(space.length);
}

/** Split a table's row at its bars, into `most` cells; `\\|` is a bar that stays. */
function cellsOf(line, most = MOST_COLUMNS + 1) {
  const text = line.trim();
  const cells = [];
  let start = text.startsWith("|") ? 1 : 0;
  let escaped = false;
  const add = (end) => {
    const cell = text.slice(start, end).trim();
    cells.push(escaped ? cell.replace(/\\([^])/g, (both, one) => (one === "|" ? "|" : both)) : cell);
    start = end + 1;
    escaped = false;
  };
  BARS.lastIndex = start;
  for (let found = BARS.exec(text); found && cells.length < most; found = BARS.exec(text)) {
    if (found[0] === "|") add(found.index);
    else escaped = true;
  }
  if (cells.length < most && (start < text.length || !text.endsWith("|"))) add(text.length);
  return cells;
}

/** Whether a line says how a table's columns are aligned. */
function isDelimiterRow(line) {
  if (!line.includes("|") || /[^-:| \t]/.test(line)) return false;
  const cells = cellsOf(line);
  return cells.length > 0 && cells.length <= MOST_COLUMNS && cells.every((cell) => /^:?-+:?$/.test(cell));
}

function alignments(line) {
  return cellsOf(line).map((cell) => {
    const left = cell.startsWith(":");
    if (cell.endsWith(":")) return left ? "center" : "right";
    return left ? "left" : "";
  });
}

/** The tree of a text that grows. */
export class Blocks {
  #path; // the open containers, from the root down
  #leaf = null; // the open block in the last of them
  #partial = "";
  #afterBlank = false;
  #afterReturn = false;
  #next = 1;
  #undo = null; // while a preview is made: what takes it back

  constructor() {
    this.root = { id: 0, type: "document", children: [], closed: false };
    this.#path = [this.root];
  }

  /** The open containers, from the root down. */
  get path() {
    return this.#path;
  }

  /** How much of the text is a line that has not ended. */
  get partialLength() {
    return this.#partial.length;
  }

  /** Take more of the text. */
  write(text) {
    let more = this.#afterReturn && text.startsWith("\n") ? text.slice(1) : text;
    if (text) this.#afterReturn = text.endsWith("\r");
    more = more.replace(/\r\n?/g, "\n").replaceAll("\0", "\uFFFD");
    const lines = more.split("\n");
    if (lines.length > 1) {
      this.#line(this.#partial + lines[0]);
      this.#partial = "";
      for (let at = 1; at < lines.length - 1; at += 1) this.#line(lines[at]);
    }
    this.#partial += lines[lines.length - 1];
  }

  /** Take the text's end. */
  end() {
    if (this.#partial) this.#line(this.#partial);
    this.#partial = "";
    this.#closeTo(1);
    this.#set(this.root, "closed", true);
  }

  /** Call `look` with the unfinished line taken as if it were whole, then forget that again. */
  preview(look) {
    this.#undo = [];
    const kept = [this.#path.slice(), this.#leaf, this.#afterBlank, this.#next];
    if (this.#partial && this.#isDecided()) this.#line(this.#partial);
    look();
    for (const undo of this.#undo.reverse()) undo();
    this.#undo = null;
    [this.#path, this.#leaf, this.#afterBlank, this.#next] = kept;
  }

  /** Whether the unfinished line can be shown as what it seems to be. */
  #isDecided() {
    const text = this.#partial;
    if (this.#leaf?.type === "code") return !/^(?:`+|~+)?[ \t]*$/.test(text.slice(/^[ \t>]*/.exec(text)[0].length));
    if (this.#leaf?.type === "table") return !/^[ \t|]*$/.test(text);
    MARKER.lastIndex = 0;
    let at = 0;
    while (MARKER.test(text)) at = MARKER.lastIndex;
    // A preview is taken back in any case: a long line is shown as what it seems to be.
    return text.length > LONG || !UNDECIDED.test(text.slice(at).trimStart());
  }

  // Each change of the tree, so that a preview can be taken back.

  #set(node, name, value) {
    if (node[name] === value) return;
    const old = node[name];
    this.#undo?.push(() => { node[name] = old; });
    node[name] = value;
  }

  #append(parent, child) {
    parent.children.push(child);
    this.#undo?.push(() => { parent.children.pop(); });
  }

  #row(table, cells) {
    table.rows.push(cells);
    this.#undo?.push(() => { table.rows.pop(); });
    this.#set(table, "partial", this.#undo !== null);
  }

  #dropLast(parent) {
    const child = parent.children.pop();
    this.#undo?.push(() => { parent.children.push(child); });
  }

  #closeLeaf() {
    if (this.#leaf) this.#set(this.#leaf, "closed", true);
    this.#leaf = null;
  }

  /** Close what is open below the first `depth` containers. */
  #closeTo(depth) {
    this.#closeLeaf();
    while (this.#path.length > depth) this.#set(this.#path.pop(), "closed", true);
  }

  #add(type, fields) {
    this.#closeLeaf();
    while (this.#path.at(-1).type === "list" && type !== "item") this.#closeTo(this.#path.length - 1);
    const parent = this.#path.at(-1);
    if (this.#afterBlank && parent.children.length) {
      if (type === "item") this.#set(parent, "loose", true);
      else if (parent.type === "item") this.#set(this.#path.at(-2), "loose", true);
    }
    const node = { id: this.#next, type, closed: false, partial: this.#undo !== null, ...fields };
    this.#next += 1;
    this.#append(parent, node);
    return node;
  }

  #addContainer(type, fields) {
    this.#path.push(this.#add(type, { children: [], ...fields }));
  }

  #addLeaf(type, fields) {
    this.#leaf = this.#add(type, fields);
  }

  #line(line) {
    const state = { rest: expand(line, 0), column: 0, depth: 0, whole: false, opened: false };
    state.depth = this.#matched(state);
    state.whole = state.depth === this.#path.length;
    const inCode = this.#leaf?.type === "code" && state.whole;
    if ((inCode && this.#continueCode(state.rest)) || this.#open(state)) {
      this.#afterBlank = false;
      return;
    }
    if (isBlank(state.rest)) {
      if (!state.whole) this.#closeTo(state.depth);
      if (this.#leaf?.type !== "code") this.#closeLeaf();
      this.#afterBlank = true;
      return;
    }
    this.#text(state);
    this.#afterBlank = false;
  }

  /** Take off what the open containers need; returns how many of them go on. */
  #matched(state) {
    for (let depth = 1; depth < this.#path.length; depth += 1) {
      const container = this.#path[depth];
      if (container.type === "quote") {
        const marker = /^ {0,3}>/.exec(state.rest);
        if (!marker) return depth;
        this.#strip(state, marker[0].length, 1);
      } else if (container.type === "footnote") {
        if (isBlank(state.rest)) continue;
        if (indentOf(state.rest) < NOTE_INDENT) return depth;
        this.#strip(state, NOTE_INDENT, 0);
      } else if (container.type === "item") {
        if (isBlank(state.rest)) {
          if (!container.children.length) return depth;
        } else if (indentOf(state.rest) >= container.indent) {
          this.#strip(state, container.indent, 0);
        } else return depth;
      }
    }
    return this.#path.length;
  }

  /** Take off `width` characters, and then at most `spaces` spaces. */
  #strip(state, width, spaces) {
    state.column += width;
    state.rest = expand(state.rest.slice(width), state.column);
    const more = Math.min(spaces, indentOf(state.rest));
    state.column += more;
    state.rest = state.rest.slice(more);
  }

  /** A line of an open block of code; returns whether it was one. */
  #continueCode(line) {
    const { fence, text, lines, margin } = this.#leaf;
    let more = line;
    if (fence) {
      const end = /^ {0,3}(`{3,}|~{3,})[ \t]*$/.exec(line);
      if (end && end[1][0] === fence[0] && end[1].length >= fence.length) {
        this.#closeLeaf();
        return true;
      }
      more = line.slice(Math.min(margin, indentOf(line)));
    } else if (isBlank(line)) {
      this.#set(this.#leaf, "blank", `${this.#leaf.blank}\n${line.slice(4)}`);
      return true;
    } else if (indentOf(line) >= 4) {
      more = `${this.#leaf.blank.slice(1)}${this.#leaf.blank && "\n"}${line.slice(4)}`;
      this.#set(this.#leaf, "blank", "");
    } else {
      if (this.#leaf.blank) this.#afterBlank = true;
      return false;
    }
    this.#set(this.#leaf, "text", lines ? `${text}\n${more}` : more);
    this.#set(this.#leaf, "lines", lines + 1);
    return true;
  }

  /** Open the blocks that begin here; returns whether they are the whole line. */
  #open(state) {
    while (!isBlank(state.rest)) {
      const indent = indentOf(state.rest);
      if (indent >= 4) {
        if (this.#leaf?.type === "paragraph" || this.#leaf?.type === "table") return false;
        this.#closeTo(state.depth);
        this.#addLeaf("code", { fence: "", lang: "", text: state.rest.slice(4), lines: 1, blank: "" });
        return true;
      }
      const text = state.rest.slice(indent);
      if (this.#openLeaf(state, text, indent)) return true;
      if (this.#path.length >= DEEPEST || !this.#openContainer(state, text, indent)) return false;
      state.opened = true;
      state.whole = true;
      state.depth = this.#path.length;
    }
    return false;
  }

  #openLeaf(state, text, indent) {
    const heading = HEADING.exec(text);
    if (heading) {
      this.#closeTo(state.depth);
      this.#add("heading", { level: heading[1].length, text: titleOf(heading[2] ?? ""), closed: true });
      return true;
    }
    const fence = FENCE.exec(text);
    if (fence) {
      this.#closeTo(state.depth);
      const lang = (fence[2] ?? fence[4]).trim().split(/\s/)[0];
      const fields = { fence: fence[1] ?? fence[3], lang, text: "", lines: 0, margin: indent };
      this.#addLeaf("code", fields);
      return true;
    }
    if (state.whole && this.#leaf?.type === "paragraph" && /^(?:=+|-+)[ \t]*$/.test(text)) {
      const title = this.#leaf.text.trim();
      this.#dropLast(this.#path.at(-1));
      this.#leaf = null;
      this.#add("heading", { level: text[0] === "=" ? 1 : 2, text: title, closed: true });
      return true;
    }
    if (!RULE.test(text)) return false;
    this.#closeTo(state.depth);
    this.#add("rule", { closed: true });
    return true;
  }

  #openContainer(state, text, indent) {
    if (text.startsWith(">")) {
      this.#closeTo(state.depth);
      this.#addContainer("quote", {});
      this.#strip(state, indent + 1, 1);
      return true;
    }
    const note = NOTE.exec(text);
    if (note) {
      this.#closeTo(state.depth);
      this.#addContainer("footnote", { label: note[1] });
      this.#strip(state, indent + note[0].length, Infinity);
      return true;
    }
    const bullet = BULLET.exec(text);
    const marker = bullet ?? NUMBER.exec(text);
    if (!marker) return false;
    const empty = isBlank(text.slice(marker[0].length));
    const interrupts = state.whole && this.#leaf?.type === "paragraph";
    if (interrupts && (empty || (!bullet && marker[1] !== "1"))) return false;
    this.#closeTo(state.depth);
    const kind = marker[2] ?? marker[1];
    if (this.#path.at(-1).type !== "list" || this.#path.at(-1).kind !== kind) {
      if (this.#path.at(-1).type === "list") this.#closeTo(this.#path.length - 1);
      const start = bullet ? 1 : Number(marker[1]);
      this.#addContainer("list", { kind, ordered: !bullet, start, loose: false });
    }
    this.#strip(state, indent + marker[0].length, 0);
    const spaces = indentOf(state.rest);
    const taken = empty || spaces > 4 ? Math.min(spaces, 1) : spaces;
    this.#addContainer("item", { indent: indent + marker[0].length + (empty ? 1 : taken) });
    this.#strip(state, 0, empty ? spaces : taken);
    return true;
  }

  /** A line that is nothing else. */
  #text(state) {
    const line = state.rest.trimStart();
    const lazy = !state.whole && this.#leaf?.type === "paragraph";
    if (!state.whole && !lazy) this.#closeTo(state.depth);
    if (this.#leaf?.type === "table") this.#row(this.#leaf, cellsOf(line, this.#leaf.align.length));
    else if (this.#leaf?.type !== "paragraph") this.#addLeaf("paragraph", { text: line });
    else if (lazy || !this.#openTable(line)) this.#set(this.#leaf, "text", `${this.#leaf.text}\n${line}`);
  }

  /** The paragraph's last line is a table's head if this line says so. */
  #openTable(line) {
    if (!isDelimiterRow(line)) return false;
    const { text } = this.#leaf;
    const at = text.lastIndexOf("\n") + 1;
    const header = text.slice(at);
    const align = alignments(line);
    if (!header.includes("|") || cellsOf(header).length !== align.length) return false;
    if (at) this.#set(this.#leaf, "text", text.slice(0, at - 1));
    else this.#dropLast(this.#path.at(-1));
    if (!at) this.#leaf = null;
    this.#addLeaf("table", { align, head: cellsOf(header), rows: [] });
    return true;
  }
}
