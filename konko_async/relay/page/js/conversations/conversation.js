// A conversation: a tree of turns, of which one path is seen. Plain data, and nothing that is drawn.

import { textOf } from "./content.js";

const LONGEST_TITLE = 80; // characters

export const newId = () => (crypto.randomUUID ? crypto.randomUUID() : [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("")); // without https there is no UUID

/** A version of an answer that has not begun: plain data, kept as it is. */
const newVersion = (model) => ({
  key: newId(), role: "assistant", model, text: "", thought: "", state: "waiting", time: Date.now(), usage: null,
  id: null, last: 0, pieces: 0, figures: null, finish: null, failure: null, // `id` and `last`: the stream, and how far it was read
});

/** What is asked is named after its first line, without the marks of Markdown. */
export function titleOf(content) {
  const lines = textOf(content).split("\n").map((one) => one.trim().replace(/^(?:#{1,6}|>|[-*+]|`{3,}\S*)(?:\s+|$)/, ""));
  const line = (lines.find(Boolean) ?? "Without words").replace(/(\*\*|__|~~|`+)(.+?)\1/g, "$2");
  return line.length > LONGEST_TITLE ? `${line.slice(0, LONGEST_TITLE - 1)}…` : line;
}

/** The version of a column's answer that is seen. */
export const shownVersion = (column) => column.versions[column.shown];

/** What a later turn depends on: the versions that were seen when it was asked. */
const selection = (turn) => turn.answers.map((column) => shownVersion(column).key).join(" ");

const group = (parent, after) => `${parent ?? ""}/${after}`;

/**
 * `about` is {id, title, named, created, changed, shown}; `shown` says by group which version of a
 * question is seen. A turn is {id, conversation, parent, after, role: "user", content, time,
 * answers}; an answer is {shown, versions}, one for each model that was asked.
 */
export class Conversation {
  constructor(about = null, turns = []) {
    const now = Date.now();
    this.about = about ?? { id: newId(), title: "", named: false, created: now, changed: now, shown: {} };
    this.unsaved = new Set(); // turns
    this.aboutUnsaved = false;
    this.turns = new Map();
    this.groups = new Map();
    for (const turn of [...turns].sort((one, other) => one.time - other.time)) this.#take(turn);
  }

  get id() {
    return this.about.id;
  }

  #take(turn) {
    this.turns.set(turn.id, turn);
    const key = group(turn.parent, turn.after);
    if (!this.groups.has(key)) this.groups.set(key, []);
    this.groups.get(key).push(turn);
  }

  /** The turns that are seen, from the first to the last. */
  path() {
    const found = [];
    let key = group(null, "");
    while (this.groups.has(key)) {
      const turns = this.groups.get(key);
      const turn = turns.find((one) => one.id === this.about.shown[key]) ?? turns.at(-1);
      found.push(turn);
      key = group(turn.id, selection(turn));
    }
    return found;
  }

  /** The versions of a question, itself among them. */
  siblings(turn) {
    return this.groups.get(group(turn.parent, turn.after));
  }

  /** Add a question after a turn, or as the first one. */
  addAfter(parent, content, models) {
    return this.#add(parent?.id ?? null, parent ? selection(parent) : "", content, models);
  }

  /** Add another version of a question. */
  addBeside(turn, content, models) {
    return this.#add(turn.parent, turn.after, content, models);
  }

  #add(parent, after, content, models) {
    const last = this.siblings({ parent, after })?.at(-1)?.time ?? 0;
    const turn = {
      id: newId(), conversation: this.id, parent, after, role: "user", content,
      time: Math.max(Date.now(), last + 1), // the order of versions
      answers: models.map((model) => ({ shown: 0, versions: [newVersion(model)] })),
    };
    this.#take(turn);
    if (!parent && !this.about.named) this.about.title = titleOf(content);
    this.choose(turn);
    this.asked(turn);
    return turn;
  }

  /** Let this version of a question be the one that is seen. */
  choose(turn) {
    this.about.shown[group(turn.parent, turn.after)] = turn.id;
    this.aboutUnsaved = true;
  }

  /** Add another version of an answer; one in which nothing came is replaced. */
  addVersion(turn, column) {
    const versions = turn.answers[column].versions;
    const version = newVersion(shownVersion(turn.answers[column]).model);
    if (this.#isBarren(turn, column)) versions[turn.answers[column].shown] = version;
    else turn.answers[column].shown = versions.push(version) - 1;
    this.asked(turn);
    return version;
  }

  #isBarren(turn, column) {
    const { text, thought } = shownVersion(turn.answers[column]);
    return !text && !thought && !this.groups.has(group(turn.id, selection(turn)));
  }

  /** Something was asked: the conversation is the latest now. */
  asked(turn) {
    this.unsaved.add(turn);
    this.about.changed = Date.now();
    this.aboutUnsaved = true;
  }

  /** What a model gets before a turn of the path. */
  messagesBefore(turn, model) {
    const path = this.path();
    return path.slice(0, path.indexOf(turn)).flatMap((one) => messagesOf(one, model));
  }

  plain() {
    return { about: this.about, turns: [...this.turns.values()] };
  }
}

/** A turn as messages: each model reads what it said itself; one that joined later, what the first did. */
export function messagesOf(turn, model) {
  const usable = turn.answers.map(shownVersion).filter((version) => version.text);
  const version = usable.find((one) => one.model === model) ?? usable[0];
  const asked = { role: "user", content: turn.content };
  return version ? [asked, { role: "assistant", content: version.text }] : [asked];
}
