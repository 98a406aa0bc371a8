// Where an answer is continued: a model that begins by saying its last words again is not heard twice.

const TAIL = 400; // characters of what was said that may be repeated
const LEAST = 8; // characters that are a repetition, and no chance

/** What `text` is continued with. */
export class Seam {
  #tail;
  #held = "";
  #open = true;

  constructor(text) {
    this.#tail = text.slice(-TAIL);
  }

  /** Whether something has come that is not given out yet. */
  get holds() {
    return this.#held !== "";
  }

  /** Take a piece; returns what is new of what came. Nothing, for as long as it may be a repetition. */
  take(piece) {
    if (!this.#open) return piece;
    this.#held += piece;
    return this.#tail.includes(this.#held) ? "" : this.end();
  }

  /** The rest: nothing more comes, or nothing more is a repetition. */
  end() {
    this.#open = false;
    const held = this.#held;
    this.#held = "";
    for (let length = held.length; length >= LEAST; length -= 1) {
      if (this.#tail.endsWith(held.slice(0, length))) return held.slice(length);
    }
    return held;
  }
}
