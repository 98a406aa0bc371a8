// Markdown within a block: a string in, a list of nodes out. Knows nothing of the page.
//
// A node is {type: "text", text} or {type: "em" | "strong" | "del" | "code" | "math" | "note" | "link" |
// "break", nodes?, text?, href?, title?}; a note's text is its label. CommonMark's rules, and one more: what opens emphasis, code,
// math or a link must be closed within REACH characters, else it is text. So a growing paragraph has a
// part that can no longer change, and only its end has to be read again for each token.
//
// Every step is bounded by REACH or LONGEST_ADDRESS, and what was looked for in vain is not looked for
// again (`#none`, `#bars`, `bottoms`): the time is linear in the text, whatever a model writes.

import { isWordCharacter, readTarget, safeAddress } from "./addresses.js";
import { decodeEntity } from "./entities.js";

const REACH = 1000;
const LONGEST_ADDRESS = 2000;
const DEEPEST_GUESS = 8; // marks that are not closed yet and are shown as if they were
const PUNCTUATION = /[\p{P}\p{S}]/u;
const ESCAPED = /[!-/:-@[-`{-~]/;
const SPECIAL = /[\\`*_~[\]!<&\nh$]/g;
const ANGLE = /<((?:https?:\/\/|mailto:)[^\s<>]{0,2000})>/iy;
const ANGLE_BEGUN = /<(?:h|ht|htt|https?|https?:|https?:\/|m|ma|mai|mail|mailt|mailto|(?:https?:\/\/|mailto:)[^\s<>]{0,2000})?$/iy;
const BREAK = /<br[ \t]{0,20}\/?>/iy;
const BREAK_BEGUN = /<br?[ \t]{0,20}\/?$/iy;
const BARE = /https?:\/\/[^\s<>"]/iy;
const BARE_BEGUN = /h(?:t(?:t(?:ps?(?::\/{0,2})?)?)?)?$/iy;
const ENTITY = /&(?:#(\d{1,7})|#[xX]([0-9a-fA-F]{1,6})|([a-z]{2,6}));/y;
const ENTITY_BEGUN = /&(?:#(?:\d{0,7}|[xX][0-9a-fA-F]{0,6})|[a-z]{0,6})$/y;
const NOTE = /\[\^([^\s[\]]{1,40})\](?!\()/y;

function matchAt(pattern, text, at) {
  pattern.lastIndex = at;
  return pattern.exec(text);
}

/** The end of a run of the character at `at`. */
function runEnd(text, at) {
  const code = text.charCodeAt(at);
  let end = at + 1;
  while (text.charCodeAt(end) === code) end += 1;
  return end;
}

/** The code point before `at`, a space at the beginning. */
function characterBefore(text, at) {
  if (!at) return " ";
  const low = text.charCodeAt(at - 1);
  return String.fromCodePoint(text.codePointAt(low >= 0xDC00 && low <= 0xDFFF && at > 1 ? at - 2 : at - 1));
}

class Reader {
  #none = new Map(); // what closes, and the place before which there is none
  #live = []; // places in out of the brackets that may become links
  #bars = []; // [from, to]: no bare address begins there, as one was tried in vain

  /** `from`: where to begin; what stands before it is looked at, not read. */
  constructor(text, { from = 0, growing = false, barred = 0 } = {}) {
    this.text = text;
    this.growing = growing;
    this.at = from;
    this.from = from;
    this.barred = barred; // up to here no bare address begins
    this.spaces = 0; // that stand before a line's end
    this.edge = text.length; // where a run of marks that ends the text begins
    this.out = []; // nodes and, until they are matched, delimiters
    this.brackets = []; // places in out
    this.settled = text.length; // what comes after this place may yet change it
  }

  read() {
    const { text } = this;
    while (this.at < text.length) {
      SPECIAL.lastIndex = this.at;
      const found = SPECIAL.exec(text);
      const next = found ? found.index : text.length;
      if (next > this.at) this.plain(next);
      if (next < text.length) this.special(text[next]);
    }
    // A space at the end may stand before a line's end, where it goes, or makes a break.
    let spaces = text.length;
    while (spaces > this.from && text.charCodeAt(spaces - 1) === 32) spaces -= 1;
    if (spaces < text.length) this.waits(spaces);
    const open = this.#live.find((place) => text.length - this.out[place].start <= REACH);
    if (open !== undefined) this.waits(this.out[open].start);
    this.match(0, true);
    return this.out;
  }

  /** Put out what is nothing special; spaces at a line's end are left out, and counted. */
  plain(end) {
    const { text, at } = this;
    let last = end;
    if (text.charCodeAt(end) === 10) while (last > at && text.charCodeAt(last - 1) === 32) last -= 1;
    this.spaces = end - last;
    this.push(text.slice(at, last), end);
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

  /** What begins at `start` may still become something else. */
  waits(start) {
    if (start < this.settled) this.settled = start;
  }

  special(character) {
    const { text, at } = this;
    const next = text[at + 1] ?? "";
    if (character === "\\") this.backslash(next);
    else if (character === "`") this.code();
    else if (character === "$") this.dollar(next);
    else if (character === "\n") this.newline();
    else if (character === "<") this.angle();
    else if (character === "&") this.entity();
    else if (character === "h") this.bare();
    else if (character === "[" || (character === "!" && next === "[")) this.openBracket(character);
    else if (character === "]") this.closeBracket();
    else if (character === "!") {
      if (!next) this.waits(at);
      this.push("!", at + 1);
    } else this.delimiter(character);
  }

  backslash(next) {
    const { at } = this;
    if (!next) this.waits(at);
    if ((next === "(" || next === "[") && this.math(next === "(" ? "\\)" : "\\]", 2)) return;
    if (next === "\n") this.node("break", {}, at + 2);
    else if (ESCAPED.test(next)) this.push(next, at + 2);
    else this.push("\\", at + 1);
  }

  dollar(next) {
    const { text, at } = this;
    if (!next) this.waits(at);
    if (next === "$") {
      if (at + 2 === text.length) this.waits(at);
      if (this.math("$$", 2)) return;
      const end = runEnd(text, at);
      if (end === text.length) this.waits(at);
      this.push(text.slice(at, end), end);
      return;
    }
    // As pandoc does: "$5 and $10" are prices.
    const close = /\s/.test(next || " ") ? -1 : this.find("$", at + 1, isMathEnd);
    if (close > at + 1) this.node("math", { text: text.slice(at, close + 1) }, close + 1);
    else {
      if (next && text.length - at <= REACH + 2) this.waits(at);
      this.push("$", at + 1);
    }
  }

  /** Read a formula, which keeps its marks and backslashes; returns whether there is one. */
  math(closing, width) {
    const { text, at } = this;
    const close = this.find(closing, at + width);
    if (close >= 0 && /[^\s\\()[\]$]/.test(text.slice(at + width, close))) {
      this.node("math", { text: text.slice(at, close + 2) }, close + 2);
      return true;
    }
    if (close >= 0 || text.length - at > REACH + 4) return false;
    this.waits(at);
    if (!this.growing || text.length - at <= width) return false;
    this.node("math", { text: text.slice(at) }, text.length);
    return true;
  }

  /** The first place at or after `from`, within REACH, where something closes; -1 if there is none. */
  find(closing, from, isEnd = null) {
    const { text } = this;
    const known = this.#none.get(closing);
    if (known !== undefined && known.from <= from && (known.at < 0 || known.at >= from)) {
      if (known.at >= 0) return known.at - from <= REACH ? known.at : -1;
      if (from + REACH <= known.to) return -1;
    }
    const to = Math.min(from + 2 * REACH, text.length);
    let at = from - 1;
    do at = text.indexOf(closing, at + 1); while (at >= 0 && at < to && isEnd && !isEnd(text, at));
    if (at >= to) at = -1;
    this.#none.set(closing, { from, at, to: at < 0 && to === text.length ? Infinity : to });
    return at >= 0 && at - from <= REACH ? at : -1;
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
        if (code.startsWith(" ") && code.endsWith(" ") && code.trim()) code = code.slice(1, -1);
        if (after === text.length) this.waits(at);
        this.node("code", { text: code }, after);
        return;
      }
      end = after;
    }
    if (start === text.length) this.waits(at);
    if (text.length - at <= REACH) {
      this.waits(at);
      if (this.growing && start < text.length && start - at === 1) {
        this.node("code", { text: text.slice(start).replaceAll("\n", " ") }, text.length);
        return;
      }
    }
    this.push(text.slice(at, start), start);
  }

  newline() {
    const { at } = this;
    if (this.spaces >= 2) this.node("break", {}, at + 1);
    else this.push("\n", at + 1);
    this.spaces = 0;
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
      if (matchAt(BREAK_BEGUN, text, at) || matchAt(ANGLE_BEGUN, text, at)) this.waits(at);
      this.push("<", at + 1);
    }
  }

  entity() {
    const { text, at } = this;
    const found = matchAt(ENTITY, text, at);
    const decoded = found && decodeEntity(found);
    if (!found && text.length - at < 10 && matchAt(ENTITY_BEGUN, text, at)) this.waits(at);
    if (decoded) this.push(decoded, at + found[0].length);
    else this.push("&", at + 1);
  }

  bare() {
    const { text, at } = this;
    if (text.length - at < 9 && matchAt(BARE_BEGUN, text, at)) this.waits(at);
    // Inside [a link's text](...) there is no other link.
    const barred = at < this.barred || isWordCharacter(text[at - 1] ?? "") || this.#isInLink();
    if (barred || !matchAt(BARE, text, at)) {
      this.push("h", at + 1);
      return;
    }
    let end = at;
    const limit = Math.min(text.length, at + LONGEST_ADDRESS + 1);
    while (end < limit && !/[\s<>"]/.test(text[end])) end += 1;
    if (end === text.length) this.waits(at);
    const address = end - at > LONGEST_ADDRESS ? "" : trimAddress(text.slice(at, end));
    const href = /^https?:\/\/./i.test(address) ? safeAddress(address) : null;
    if (href) this.node("link", { href, title: "", nodes: [{ type: "text", text: address }] }, at + address.length);
    else {
      // Nor is there one in what was read for it: else it would be read again for each "h".
      this.barred = end;
      this.#bars.push([at, end]);
      this.push("h", at + 1);
    }
  }

  /** Whether what is read may be a link's text. */
  #isInLink() {
    const place = this.#live.at(-1);
    return place !== undefined && this.at - this.out[place].start <= REACH;
  }

  /** Up to where no bare address begins, for who reads on at `at`. */
  barredAt(at) {
    return this.#bars.findLast(([from]) => from < at)?.[1] ?? 0;
  }

  openBracket(character) {
    const note = character === "[" && matchAt(NOTE, this.text, this.at);
    if (note) {
      const end = this.at + note[0].length;
      if (end === this.text.length) this.waits(this.at); // for "("
      this.node("note", { text: note[1] }, end);
      return;
    }
    const image = character === "!";
    const end = this.at + (image ? 2 : 1);
    this.brackets.push(this.out.length);
    this.#live.push(this.out.length);
    this.out.push({ type: "text", text: image ? "![" : "[", bracket: true, active: true, image, start: this.at, end });
    this.at = end;
  }

  closeBracket() {
    const { text, at } = this;
    const place = this.brackets.pop();
    const opener = this.out[place];
    if (opener?.active) this.#live.pop();
    if (!opener?.active || at - opener.start > REACH || text[at + 1] !== "(") {
      if (opener) opener.bracket = false;
      if (opener?.active && at + 1 === text.length) this.waits(opener.start); // for "("
      this.push("]", at + 1);
      return;
    }
    const target = readTarget(text, at + 1, REACH, LONGEST_ADDRESS);
    if (target === null || target === "cut") {
      opener.bracket = false;
      if (target) this.waits(opener.start);
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
    if (opener.image) return;
    // No link within a link.
    this.#live = this.#live.filter((other) => {
      this.out[other].active = this.out[other].image;
      return this.out[other].image;
    });
  }

  delimiter(character) {
    const { text, at } = this;
    const end = runEnd(text, at);
    if (end === text.length) {
      this.edge = at;
      this.waits(at);
    }
    const before = characterBefore(text, at);
    const after = end < text.length ? String.fromCodePoint(text.codePointAt(end)) : " ";
    const [spaceBefore, spaceAfter] = [/\s/.test(before), /\s/.test(after)];
    const [markBefore, markAfter] = [PUNCTUATION.test(before), PUNCTUATION.test(after)];
    const left = !spaceAfter && (!markAfter || spaceBefore || markBefore);
    const right = !spaceBefore && (!markBefore || spaceAfter || markAfter);
    const word = character === "_";
    const canOpen = left && (!word || !right || markBefore);
    const canClose = right && (!word || !left || markAfter);
    if ((character === "~" && end - at !== 2) || !(canOpen || canClose)) this.push(text.slice(at, end), end);
    else this.node("delimiter", { character, count: end - at, length: end - at, canOpen, canClose, from: at }, end);
  }

  /** Pair the delimiters from a place in out on; what is left becomes text. */
  match(bottom, last) {
    const { out } = this;
    const read = out.splice(bottom); // taken one by one: nothing is moved within a long list
    const opens = []; // places in out
    const bottoms = new Map(); // of a kind of closer: openers below this place were tried
    for (const node of read) {
      let closer = node;
      while (closer.type === "delimiter" && closer.canClose && closer.count) {
        const kind = `${closer.character}${closer.canOpen}${closer.length % 3}`;
        const found = this.#opener(opens, closer, bottoms.get(kind) ?? 0);
        if (found < 0) {
          bottoms.set(kind, out.length);
          break;
        }
        opens.length = found + 1;
        const opener = out[opens[found]];
        this.#wrap(opens[found], closer);
        if (!opener.count) opens.pop();
      }
      if (closer.type === "delimiter" && closer.count && closer.canOpen) opens.push(out.length);
      if (closer.type !== "delimiter" || closer.count) out.push(closer);
    }
    this.leave(bottom, last);
  }

  /** Where in `opens` the nearest opener for a closer is; -1 if there is none at or above `bottom`. */
  #opener(opens, closer, bottom) {
    for (let at = opens.length - 1; at >= 0 && opens[at] >= bottom; at -= 1) {
      if (closer.from - this.out[opens[at]].from > REACH) return -1;
      if (pairs(this.out[opens[at]], closer)) return at;
    }
    return -1;
  }

  /** Make a node of what stands behind an opener; it takes marks of both. */
  #wrap(from, closer) {
    const { out } = this;
    const opener = out[from];
    const width = opener.character === "~" || (opener.count >= 2 && closer.count >= 2) ? 2 : 1;
    const type = opener.character === "~" ? "del" : width === 2 ? "strong" : "em";
    const nodes = out.splice(from + 1).map(asText);
    opener.count -= width;
    closer.count -= width;
    opener.end -= width;
    const node = { type, nodes, start: opener.end, end: closer.start + width };
    closer.start += width;
    if (!opener.count) out.pop();
    out.push(node);
  }

  leave(bottom, last) {
    const { out } = this;
    let guesses = this.growing && last ? DEEPEST_GUESS : 0;
    for (let place = out.length - 1; place >= bottom; place -= 1) {
      const node = out[place];
      if (node.type !== "delimiter") continue;
      const waiting = last && node.canOpen && this.edge - node.from <= REACH;
      if (waiting) this.waits(node.from);
      out[place] = asText(node);
      if (!waiting || !guesses || node.end >= this.text.length) continue;
      const rest = out.slice(place + 1);
      if (!rest.some((other) => other.text?.trim() || other.nodes)) continue;
      guesses -= 1;
      const type = node.character === "~" ? "del" : node.count >= 2 ? "strong" : "em";
      out.splice(place, out.length, { type, nodes: rest, start: node.start, end: this.text.length });
    }
  }
}

/** Whether a "$" may end a formula. */
function isMathEnd(text, at) {
  return !/[\s\\$]/.test(text[at - 1]) && !/[\d$]/.test(text[at + 1] ?? "");
}

/** An address without what belongs to the sentence around it. */
function trimAddress(address) {
  let [open, close] = [0, 0];
  for (const character of address) {
    if (character === "(") open += 1;
    else if (character === ")") close += 1;
  }
  let end = address.length;
  for (; end; end -= 1) {
    const last = address[end - 1];
    if (last === ")" && close > open) close -= 1;
    else if (!"?!.,:;*_~'\"`]\\".includes(last)) break;
  }
  return address.slice(0, end);
}

function pairs(opener, closer) {
  if (opener.character !== closer.character) return false;
  if (opener.character === "~") return true;
  const both = opener.canClose || closer.canOpen;
  const { length: one } = opener;
  const { length: two } = closer;
  return !(both && (one + two) % 3 === 0 && (one % 3 || two % 3));
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
      else if (node.text) out.push({ type: "text", text: node.text });
    } else out.push(node.nodes ? { ...node, nodes: joined(node.nodes) } : node);
  }
  return out;
}

/**
 * Read a text from a place on, as `settle` returned it, up to `to`; `growing`: more is to come, so close
 * what is still open instead of showing marks.
 */
export function readInline(text, { from = 0, barred = 0, growing = false, to = text.length } = {}) {
  return joined(new Reader(to < text.length ? text.slice(0, to) : text, { from, barred, growing }).read());
}

/** How far the text reads the same whatever comes after it: {from, barred}, with which to read on. */
export function settle(text, { from = 0, barred = 0 } = {}) {
  const reader = new Reader(text, { from, barred });
  const nodes = reader.read();
  let at = Math.max(reader.settled, from);
  const low = text.charCodeAt(at);
  if (low >= 0xDC00 && low <= 0xDFFF && at > from) at -= 1; // not between the halves of a character
  const high = text.charCodeAt(at - 1);
  if (at === text.length && high >= 0xD800 && high <= 0xDBFF && at > from) at -= 1;
  const across = nodes.find((node) => node.end > at);
  if (across && across.start < at && across.type !== "text") at = across.start;
  return { from: at, barred: Math.max(reader.barredAt(at), barred > at ? barred : 0) };
}
