// Code in colours: a line in, its pieces out. Knows nothing of the page.
//
// A language is a set of modes, and a mode one pattern that is tried where the last match ended. No
// pattern here goes over the same characters twice, and each match takes at least one: the time is
// linear in the text, whatever it is.

/** A line that is longer is not looked at. */
export const LONGEST_LINE = 2000; // characters

/**
 * Make a mode of rules [kind, pattern, next]: `kind` is a piece's class, "word" for words that are looked
 * up, or null for text; `next` is the mode after it, null the first one; without, it stays.
 */
function compile(rules, flags) {
  const source = rules.map(([, pattern]) => `(${pattern})`).join("|");
  return { pattern: new RegExp(`${source}|[^]`, `${flags}y`), rules };
}

export class Language {
  #modes = new Map();
  #words = new Map();
  #fold;
  #capitals;

  /**
   * `modes`: rules by name; the first one is that of a text's beginning. `words`: a class, and its words
   * in one text. `fold`: upper case is as lower case. `capitals`: the class of other words that begin with
   * a capital.
   */
  constructor({ modes, words = {}, fold = false, capitals = null }) {
    for (const [name, rules] of Object.entries(modes)) this.#modes.set(name, compile(rules, "u"));
    for (const [kind, text] of Object.entries(words)) {
      for (const word of text.split(" ")) this.#words.set(word, kind);
    }
    this.first = Object.keys(modes)[0];
    this.#fold = fold;
    this.#capitals = capitals;
  }

  /** Read a line that begins in a mode: its pieces [class or "", text], and the mode of the next line. */
  read(line, mode = this.first) {
    const pieces = [];
    let name = mode;
    let at = 0;
    while (at < line.length) {
      const { pattern, rules } = this.#modes.get(name);
      pattern.lastIndex = at;
      const found = pattern.exec(line);
      const end = pattern.lastIndex;
      let kind = "";
      for (let place = 0; place < rules.length; place += 1) {
        if (found[place + 1] === undefined) continue;
        kind = rules[place][0] === "word" ? this.#word(found[0], line[end]) : rules[place][0] ?? "";
        if (rules[place].length > 2) name = rules[place][2] ?? this.first;
        break;
      }
      const last = pieces.at(-1);
      if (last && last[0] === kind) last[1] += line.slice(at, end);
      else pieces.push([kind, line.slice(at, end)]);
      at = end;
    }
    return { pieces, mode: name };
  }

  #word(word, next) {
    const known = this.#words.get(this.#fold ? word.toLowerCase() : word);
    if (known) return known;
    if (next === "(") return "call";
    return this.#capitals && /^\p{Lu}/u.test(word) ? this.#capitals : "";
  }
}
