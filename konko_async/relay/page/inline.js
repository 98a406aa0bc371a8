// Markdown within a block: a string in, a list of nodes out. Knows nothing of the page.
//
// A node is {type: "text", text} or {type: "em" | "strong" | "del" | "code" | "link" | "break",
// nodes?, text?, href?, title?}. CommonMark's rules, and one more: what opens emphasis, code or a
// link must be closed within REACH characters, else it is text. So a growing paragraph has a part
// that can no longer change, and only its end has to be read again for each token.

export const REACH = 1000;
const LONGEST_ADDRESS = 2000;
const PUNCTUATION = /[\p{P}\p{S}]/u;
const WORDLESS = /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}、。，！？：；]/u;
const ESCAPED = /[!-/:-@[-`{-~]/;
const SPECIAL = /[\\`*_~[\]!<&\nh]/g;
const BARE = /https?:\/\/[^\s<>"]+/iy;
const ANGLE = /<((?:https?:\/\/|mailto:)[^\s<>]*)>/iy;
const BREAK = /<br[ \t]*\/?>/iy;
const ENTITY = /&(?:#(\d{1,7})|#[xX]([0-9a-fA-F]{1,6})|([a-z]{2,6}));/y;
const NAMES = {
  amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", nbsp: "\u00A0", copy: "©", reg: "®", trade: "™", deg: "°", hellip: "…", mdash: "—", ndash: "–",
  lsquo: "‘", rsquo: "’", ldquo: "“", rdquo: "”", bull: "•", middot: "·", times: "×", larr: "←", rarr: "→", le: "≤", ge: "≥", ne: "≠", euro: "€",
};

/** The address as it may be followed, or null: only the web and mail, nothing that runs. */
export function safeAddress(address) {
  // What a browser would drop or trim must not hide another scheme from us.
  const text = address.replace(/[\u0000-\u001F\u007F-\u009F]+/g, "").trim();
  if (!/^(?:https?:\/\/|mailto:)/i.test(text)) return null;
  try {
    const url = new URL(text);
    return ["http:", "https:", "mailto:"].includes(url.protocol) ? url.href : null;
  } catch {
    return null;
  }
}

function matchAt(pattern, text, at) {
  pattern.lastIndex = at;
  return pattern.exec(text);
}

function decodeEntity(found) {
  if (found[3]) return Object.hasOwn(NAMES, found[3]) ? NAMES[found[3]] : null;
  const code = found[1] ? Number(found[1]) : Number.parseInt(found[2], 16);
  const valid = code > 0 && code <= 0x10FFFF && !(code >= 0xD800 && code <= 0xDFFF);
  return valid ? String.fromCodePoint(code) : "\uFFFD";
}

/** The end of a run of the character at `at`. */
function runEnd(text, at) {
  let end = at + 1;
  while (text[end] === text[at]) end += 1;
  return end;
}

/** Read `(address "title")`; null if it is none, "cut" if the text ends first. */
function readTarget(text, start) {
  let at = start + 1;
  while (/[ \n]/.test(text[at] ?? "")) at += 1;
  let address = "";
  const limit = at + LONGEST_ADDRESS;
  if (text[at] === "<") {
    const end = text.indexOf(">", at);
    if (end < 0) return text.includes("\n", at) || text.length > limit ? null : "cut";
    address = text.slice(at + 1, end);
    if (address.includes("\n") || address.includes("<")) return null;
    at = end + 1;
  } else {
    for (let depth = 0; at < text.length && !/[\s\u0000-\u001F]/.test(text[at]); at += 1) {
      if (text[at] === "\\" && ESCAPED.test(text[at + 1] ?? "")) at += 1;
      else if (text[at] === "(") depth += 1;
      else if (text[at] === ")" && --depth < 0) break;
      if (at > limit) return null;
      address += text[at];
    }
  }
  const title = /^(?:\s+(?:"((?:\\.|[^"\\])*)"|'((?:\\.|[^'\\])*)'))?\s*\)/.exec(text.slice(at, at + REACH));
  if (!title) return text.length - at < REACH && /^(?:\s*|\s+(?:"[^"]*|'[^']*)|\s+(?:"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')\s*)$/.test(text.slice(at)) ? "cut" : null;
  return { address, title: title[1] ?? title[2] ?? "", end: at + title[0].length };
}

class Reader {
  constructor(text, growing) {
    this.text = text;
    this.growing = growing;
    this.at = 0;
    this.out = []; // nodes and, until they are matched, delimiters
    this.brackets = []; // places in out
    this.open = []; // where something begins that may yet be closed
  }

  read() {
    const { text } = this;
    while (this.at < text.length) {
      SPECIAL.lastIndex = this.at;
      const found = SPECIAL.exec(text);
      const next = found ? found.index : text.length;
      if (next > this.at) this.push(text.slice(this.at, next), next);
      if (next < text.length) this.special(text[next]);
    }
    for (const place of this.brackets) if (this.out[place].active) this.waits(this.out[place].start);
    this.match(0, true);
    return this.out;
  }

  /** Put text out; it ends at `end`. */
  push(text, end) {
    const last = this.out.at(-1);
    if (last?.type === "text" && !last.bracket) {
      last.text += text;
      last.end = end;
    } else this.out.push({ type: "text", text, start: this.at, end });
    this.at = end;
  }

  node(type, fields, end) {
    this.out.push({ type, ...fields, start: this.at, end });
    this.at = end;
  }

  /** What begins at `start` is text, for now. */
  waits(start) {
    if (this.text.length - start <= REACH + LONGEST_ADDRESS) this.open.push(start);
  }

  special(character) {
    const { text, at } = this;
    const next = text[at + 1] ?? "";
    if (character === "\\") {
      if (next === "\n") this.node("break", {}, at + 2);
      else if (ESCAPED.test(next)) this.push(next, at + 2);
      else this.push("\\", at + 1);
    } else if (character === "`") this.code();
    else if (character === "\n") this.newline();
    else if (character === "<") this.angle();
    else if (character === "&") this.entity();
    else if (character === "h") this.bare();
    else if (character === "[" || (character === "!" && next === "[")) this.openBracket(character);
    else if (character === "]") this.closeBracket();
    else if (character === "!") this.push("!", at + 1);
    else this.delimiter(character);
  }

  code() {
    const { text, at } = this;
    const start = runEnd(text, at);
    let end = start;
    for (;;) {
      end = text.indexOf("`", end);
      if (end < 0 || end - at > REACH) break;
      const after = runEnd(text, end);
      if (after - end === start - at) {
        let code = text.slice(start, end).replaceAll("\n", " ");
        if (/^ .*[^ ].* $/.test(code) || /^ [^ ] $/.test(code)) code = code.slice(1, -1);
        this.node("code", { text: code }, after);
        return;
      }
      end = after;
    }
    if (text.length - at <= REACH) {
      this.open.push(at);
      if (this.growing && start < text.length && start - at === 1) {
        this.node("code", { text: text.slice(start).replaceAll("\n", " ") }, text.length);
        return;
      }
    }
    this.push(text.slice(at, start), start);
  }

  newline() {
    const last = this.out.at(-1);
    let spaces = 0;
    if (last?.type === "text") {
      spaces = last.text.length - last.text.replace(/ +$/, "").length;
      last.text = last.text.slice(0, last.text.length - spaces);
    }
    if (spaces >= 2) this.node("break", {}, this.at + 1);
    else this.push("\n", this.at + 1);
  }

  angle() {
    const { text, at } = this;
    const link = matchAt(ANGLE, text, at);
    const href = link && safeAddress(link[1]);
    if (href) {
      const shown = { type: "text", text: link[1] };
      this.node("link", { href, title: "", nodes: [shown] }, at + link[0].length);
      return;
    }
    const line = matchAt(BREAK, text, at);
    if (line) this.node("break", {}, at + line[0].length);
    else {
      if (/^<br?[ \t]*\/?$/i.test(text.slice(at, at + 20))) this.open.push(at);
      this.push("<", at + 1);
    }
  }

  entity() {
    const found = matchAt(ENTITY, this.text, this.at);
    const decoded = found && decodeEntity(found);
    if (decoded) this.push(decoded, this.at + found[0].length);
    else this.push("&", this.at + 1);
  }

  bare() {
    const { text, at } = this;
    const found = /[\p{L}\p{N}]/u.test(text[at - 1] ?? "") ? null : matchAt(BARE, text, at);
    // Inside [a link's text](...) there is no other link.
    if (!found || this.brackets.some((place) => this.out[place].active)) {
      this.push("h", at + 1);
      return;
    }
    let address = found[0];
    for (;;) {
      const trimmed = address.replace(/[?!.,:;*_~'"`\]|\\]+$/, "");
      const closing = trimmed.endsWith(")") && trimmed.split(")").length > trimmed.split("(").length;
      const next = closing ? trimmed.slice(0, -1) : trimmed;
      if (next === address) break;
      address = next;
    }
    const href = /^https?:\/\/./i.test(address) ? safeAddress(address) : null;
    if (!href) this.push("h", at + 1);
    else this.node("link", { href, title: "", nodes: [{ type: "text", text: address }] }, at + address.length);
  }

  openBracket(character) {
    const image = character === "!";
    const end = this.at + (image ? 2 : 1);
    this.brackets.push(this.out.length);
    this.out.push({ type: "text", text: image ? "![" : "[", bracket: true, active: true, image, start: this.at, end });
    this.at = end;
  }

  closeBracket() {
    const { text, at } = this;
    const place = this.brackets.pop();
    const opener = this.out[place];
    if (!opener || !opener.active || at - opener.start > REACH || text[at + 1] !== "(") {
      if (opener) opener.bracket = false;
      if (opener?.active && at + 1 === text.length) this.waits(opener.start); // for "("
      this.push("]", at + 1);
      return;
    }
    const target = readTarget(text, at + 1);
    if (target === null || target === "cut") {
      opener.bracket = false;
      if (target) this.open.push(opener.start);
      const hidden = target && this.growing;
      this.push(hidden ? "" : "]", hidden ? text.length : at + 1);
      if (hidden) opener.text = "";
      return;
    }
    this.match(place + 1, false);
    const nodes = this.out.splice(place + 1);
    const href = safeAddress(target.address.replace(/\\([!-/:-@[-`{-~])/g, "$1"));
    this.out.pop();
    this.out.push({ type: "link", href, title: target.title, image: opener.image, nodes, start: opener.start, end: target.end });
    this.at = target.end;
    // No link within a link.
    if (!opener.image) for (const other of this.brackets) if (!this.out[other].image) this.out[other].active = false;
  }

  delimiter(character) {
    const { text, at } = this;
    const end = runEnd(text, at);
    const before = at ? String.fromCodePoint(text.codePointAt(at - (/[\uDC00-\uDFFF]/.test(text[at - 1]) && at > 1 ? 2 : 1))) : " ";
    const after = end < text.length ? String.fromCodePoint(text.codePointAt(end)) : " ";
    const [spaceBefore, spaceAfter] = [/\s/.test(before), /\s/.test(after)];
    const [markBefore, markAfter] = [PUNCTUATION.test(before), PUNCTUATION.test(after)];
    const left = !spaceAfter && (!markAfter || spaceBefore || markBefore);
    const right = !spaceBefore && (!markBefore || spaceAfter || markAfter);
    const word = character === "_";
    const canOpen = left && (!word || !right || markBefore);
    const canClose = right && (!word || !left || markAfter);
    if (character === "~" && end - at !== 2) this.push(text.slice(at, end), end);
    else this.node("delimiter", { character, count: end - at, length: end - at, canOpen, canClose, from: at }, end);
  }

  /** Pair the delimiters from a place in out on; what is left becomes text. */
  match(bottom, last) {
    const { out } = this;
    const opens = [];
    for (let place = bottom; place < out.length; place += 1) {
      let closer = out[place];
      if (closer.type !== "delimiter") continue;
      while (closer.canClose && closer.count) {
        const found = opens.findLastIndex((other) => this.pairs(out[other], closer));
        if (found < 0) break;
        const from = opens[found];
        opens.length = found + 1;
        place = this.wrap(from, place);
        if (!out[from] || out[from].type !== "delimiter" || !out[from].count) opens.pop();
        closer = out[place];
      }
      if (closer.count && closer.canOpen) opens.push(place);
    }
    this.leave(bottom, last);
  }

  pairs(opener, closer) {
    if (opener.character !== closer.character || closer.from - opener.from > REACH) return false;
    if (opener.character === "~") return true;
    const both = opener.canClose || closer.canOpen;
    const { length: one } = opener;
    const { length: two } = closer;
    return !(both && (one + two) % 3 === 0 && (one % 3 || two % 3));
  }

  /** Make a node of what is between two delimiters; returns where the closer is then. */
  wrap(from, to) {
    const { out } = this;
    const [opener, closer] = [out[from], out[to]];
    const width = opener.character === "~" || (opener.count >= 2 && closer.count >= 2) ? 2 : 1;
    const type = opener.character === "~" ? "del" : width === 2 ? "strong" : "em";
    const nodes = out.slice(from + 1, to).map(asText);
    opener.count -= width;
    closer.count -= width;
    opener.end -= width;
    const node = { type, nodes, start: opener.end, end: closer.start + width };
    closer.start += width;
    out.splice(from + 1, to - from - 1, node);
    return from + 2;
  }

  leave(bottom, last) {
    const { out } = this;
    for (let place = out.length - 1; place >= bottom; place -= 1) {
      const node = out[place];
      if (node.type !== "delimiter") continue;
      const waiting = last && node.canOpen && node.count && this.text.length - node.from <= REACH;
      if (waiting) this.open.push(node.start);
      const rest = waiting && this.growing && node.end < this.text.length ? out.slice(place + 1) : [];
      if (rest.some((other) => other.text?.trim() || other.nodes)) {
        const type = node.character === "~" ? "del" : node.count >= 2 ? "strong" : "em";
        out.splice(place, out.length, { type, nodes: rest.map(asText), start: node.start, end: this.text.length });
      } else out[place] = asText(node);
    }
  }
}

function asText(node) {
  if (node.type !== "delimiter") return node;
  return { type: "text", text: node.character.repeat(node.count), start: node.start, end: node.end };
}

function joined(nodes) {
  const out = [];
  for (const node of nodes) {
    if (node.type === "text") {
      if (out.at(-1)?.type === "text") out[out.length - 1] = { type: "text", text: out.at(-1).text + node.text };
      else if (node.text) out.push(node);
    } else out.push(node.nodes ? { ...node, nodes: joined(node.nodes) } : node);
  }
  return out;
}

/** Read a text; `growing`: more is to come, so close what is still open instead of showing marks. */
export function readInline(text, growing = false) {
  return joined(new Reader(text, growing).read());
}

/** How much of a text's beginning reads the same whatever comes after it. */
export function settledLength(text) {
  const reader = new Reader(text, false);
  const nodes = reader.read();
  const spans = nodes.filter((node) => node.type !== "text");
  let at = Math.min(text.length, ...reader.open);
  for (;;) {
    at = boundary(text, at);
    const across = spans.find((node) => node.start < at && at < node.end);
    if (!across) return at;
    at = across.start;
  }
}

/** The last place at or before one where what comes after does not look back. */
function boundary(text, place) {
  let at = Math.min(place, text.length - 1);
  while (at > 0 && !isBoundary(text[at - 1], text[at])) at -= 1;
  return Math.max(at, 0);
}

/** Words begin after white space; where there are none between them, each character does. */
function isBoundary(before, after) {
  return (/\s/.test(before) && /\S/.test(after)) || (WORDLESS.test(before) && WORDLESS.test(after));
}
