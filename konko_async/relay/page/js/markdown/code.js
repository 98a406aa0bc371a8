// Draws a block of code that grows, in colours where its language is known.

import { languageOf } from "../highlight/languages.js";
import { LONGEST_LINE } from "../highlight/tokens.js";

const PIECE = 64; // lines in one element, so that a new line does not lay out all others
const GROWING = 300; // characters of an unfinished line that are looked at again for each token

/** A text node, or an element of a kind. */
function pieceOf([kind, text]) {
  const content = document.createTextNode(text);
  if (!kind) return content;
  const element = document.createElement("span");
  element.className = `hl-${kind}`;
  element.append(content);
  return element;
}

export class Code {
  #code;
  #language;
  #mode; // the language's, where the line begins
  #box = null; // the element of the last lines
  #lines = 0; // in it
  #begin = null; // the node in it before the last line
  #line = ""; // the last line
  #pieces = []; // what was drawn of it
  #whole = true; // whether all of it was looked at

  constructor(element, lang) {
    this.#code = element;
    this.#language = languageOf(lang);
    this.#mode = this.#language?.first;
  }

  /** Take more text. */
  write(text) {
    let start = 0;
    while (start < text.length) {
      const end = text.indexOf("\n", start);
      const stop = end < 0 ? text.length : end;
      this.#grow(text.slice(start, stop), end >= 0);
      if (end < 0) return;
      this.#next();
      start = end + 1;
    }
  }

  /** All of it has come. */
  end() {
    if (!this.#whole && this.#line.length <= LONGEST_LINE) this.#draw(true);
  }

  #grow(text, finished) {
    if (!this.#box) this.#box = this.#code.appendChild(document.createElement("span"));
    if (!this.#language) {
      this.#append(text);
      return;
    }
    this.#line += text;
    if (this.#line.length <= GROWING || (finished && this.#line.length <= LONGEST_LINE)) this.#draw(finished);
    else if (text) {
      this.#append(text); // a long line waits for its end, and is text meanwhile
      this.#whole = false;
    }
  }

  #append(text) {
    const last = this.#box.lastChild;
    if (last?.nodeType === Node.TEXT_NODE && last !== this.#begin) last.appendData(text);
    else this.#box.append(text);
  }

  /** Draw the last line anew, but for what it has already. */
  #draw(finished) {
    const { pieces, mode } = this.#language.read(this.#line, this.#mode);
    if (finished) this.#mode = mode;
    if (!this.#whole) this.#clear();
    this.#whole = true;
    let same = 0;
    while (same < pieces.length && isSame(pieces[same], this.#pieces[same])) same += 1;
    const [old, more] = [this.#pieces[same], pieces[same]];
    if (same === this.#pieces.length - 1 && old[0] === more?.[0] && more[1].startsWith(old[1])) {
      // Only append where that is all there is to do, to keep a selection.
      const node = this.#box.lastChild;
      (node.firstChild ?? node).appendData(more[1].slice(old[1].length));
      same += 1;
    } else for (let at = this.#pieces.length; at > same; at -= 1) this.#box.lastChild.remove();
    this.#box.append(...pieces.slice(same).map(pieceOf));
    this.#pieces = pieces;
  }

  /** Remove the last line. */
  #clear() {
    this.#pieces = [];
    while (this.#box.lastChild && this.#box.lastChild !== this.#begin) this.#box.lastChild.remove();
  }

  #next() {
    this.#lines += 1;
    if (this.#language) {
      this.#begin = document.createTextNode("\n");
      this.#box.append(this.#begin);
    } else this.#append("\n");
    this.#line = "";
    this.#pieces = [];
    this.#whole = true;
    if (this.#lines < PIECE) return;
    this.#lines = 0;
    this.#box = this.#begin = null;
  }
}

const isSame = (one, other) => other !== undefined && one[0] === other[0] && one[1] === other[1];
