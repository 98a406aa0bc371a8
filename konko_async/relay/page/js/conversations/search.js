// Finds conversations by words: each has to stand in the title or in a text.

import { eachTurn } from "./database.js";
import { textOf } from "./content.js";

const AROUND = 40; // characters that are shown beside a word

/** The words of a turn: the question, and every version of every answer. */
const wordsOf = (turn) => [textOf(turn.content), ...turn.answers.flatMap((column) => column.versions.map((version) => version.text))].join("\n");

function excerpt(text, at) {
  const [from, to] = [Math.max(at - AROUND, 0), at + AROUND * 2];
  const cut = text.slice(from, to).replace(/\s+/g, " ").trim();
  return `${from ? "…" : ""}${cut}${to < text.length ? "…" : ""}`;
}

/**
 * Of the conversations `all`, those that have every word of `query`: {about, turn, excerpt}, where
 * turn is the id of the first of those turns that have most of the words; null: the title has all.
 * `given()` tells whether the search is of no use any more.
 */
export async function search(all, query, given = () => false) {
  const words = query.toLowerCase().split(/\s+/).filter(Boolean);
  const found = new Map(all.map((about) => {
    const title = about.title.toLowerCase();
    const left = words.filter((word) => !title.includes(word));
    return [about.id, { about, turn: null, excerpt: "", left, titled: !left.length, most: 0 }];
  }));
  await eachTurn((turn) => {
    const one = found.get(turn.conversation);
    if (!one || one.titled) return !given();
    const text = wordsOf(turn);
    const lower = text.toLowerCase();
    const here = words.filter((word) => lower.includes(word));
    if (!here.length) return !given();
    one.left = one.left.filter((word) => !here.includes(word));
    if (here.length > one.most || (here.length === one.most && turn.time < one.time)) {
      const rarest = here.reduce((best, word) => (lower.split(word).length < lower.split(best).length ? word : best));
      Object.assign(one, { most: here.length, turn: turn.id, time: turn.time, excerpt: excerpt(text, lower.indexOf(rarest)) });
    }
    return !given();
  });
  return [...found.values()].filter((one) => !one.left.length);
}
