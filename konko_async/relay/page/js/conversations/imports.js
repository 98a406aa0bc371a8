// Reads a file of conversations. What does not fit is said with where it stands; nothing is half imported.

import { FORMAT, FORMAT_VERSION } from "./exports.js";

const ENDS = ["done", "stopped", "failed"];
const MOST_ANSWERS = 4;
const LONGEST_TITLE = 200; // characters

/** Why a file cannot be imported. */
export class ImportError extends Error {}

const isObject = (value) => typeof value === "object" && value !== null && !Array.isArray(value);
const isName = (value) => typeof value === "string" && value.length > 0 && value.length <= 200;

function must(holds, where, what) {
  if (!holds) throw new ImportError(`${where}: ${what}`);
}

/** Of an object its numbers; null where there is none. */
const numbers = (value) => (isObject(value) ? Object.fromEntries(Object.entries(value).filter(([, one]) => Number.isFinite(one))) : null);

/** A text that a field has, or nothing. */
const text = (value) => (typeof value === "string" ? value : "");

function versionOf(found, where) {
  must(isObject(found), where, "must be an object");
  must(isName(found.key), `${where}.key`, "must be a text");
  must(typeof found.text === "string", `${where}.text`, "must be a text");
  const failure = isObject(found.failure) ? { type: text(found.failure.type), detail: text(found.failure.detail), code: text(found.failure.code), wait: null, status: Number(found.failure.status) || 0 } : null;
  const state = ENDS.includes(found.state) ? found.state : "stopped"; // it was still being written
  return {
    ...found, role: "assistant", model: text(found.model), thought: text(found.thought), time: Number(found.time) || 0,
    finish: typeof found.finish === "string" ? found.finish : null, pieces: Number(found.pieces) || 0,
    usage: numbers(found.usage), figures: numbers(found.figures), before: null,
    state: state === "failed" && !failure ? "stopped" : state, failure,
    id: null, last: 0, // its stream is of another time
  };
}

function contentOf(found, where) {
  if (typeof found === "string") return found;
  must(Array.isArray(found) && found.length > 0, where, "must be a text or a list of parts");
  found.forEach((part, place) => {
    must(isObject(part) && isName(part.type), `${where}[${place}]`, "must be a part with a type");
    must(part.type !== "text" || typeof part.text === "string", `${where}[${place}].text`, "must be a text");
  });
  return found;
}

function answerOf(found, where) {
  must(isObject(found) && Array.isArray(found.versions) && found.versions.length > 0, where, "must have versions");
  const versions = found.versions.map((version, place) => versionOf(version, `${where}.versions[${place}]`));
  return { shown: Number.isInteger(found.shown) && found.shown in versions ? found.shown : versions.length - 1, versions };
}

function turnOf(found, where, ids, conversation) {
  must(isObject(found), where, "must be an object");
  must(found.parent === null || ids.has(found.parent), `${where}.parent`, "must be null or the id of a turn of this conversation");
  must(typeof found.after === "string", `${where}.after`, "must be a text");
  must(Number.isFinite(found.time), `${where}.time`, "must be a number of milliseconds");
  must(Array.isArray(found.answers) && found.answers.length > 0 && found.answers.length <= MOST_ANSWERS, `${where}.answers`, `must be a list of 1 to ${MOST_ANSWERS}`);
  return {
    ...found, conversation, role: "user",
    content: contentOf(found.content, `${where}.content`),
    answers: found.answers.map((answer, place) => answerOf(answer, `${where}.answers[${place}]`)),
  };
}

function conversationOf(found, where) {
  must(isObject(found), where, "must be an object");
  must(isName(found.id), `${where}.id`, "must be a text");
  must(typeof found.title === "string", `${where}.title`, "must be a text");
  must(Array.isArray(found.turns) && found.turns.length > 0, `${where}.turns`, "must be a list with a turn in it");
  const ids = new Set(found.turns.map((turn) => turn?.id));
  must(ids.size === found.turns.length && [...ids].every(isName), `${where}.turns`, "each must have an id of its own");
  must(found.turns.some((turn) => turn.parent === null), `${where}.turns`, "one must have no parent: the first");
  const turns = found.turns.map((turn, place) => turnOf(turn, `${where}.turns[${place}]`, ids, found.id));
  const { turns: _, ...rest } = found;
  const about = {
    ...rest, title: found.title.slice(0, LONGEST_TITLE), named: found.named === true,
    created: Number(found.created) || Date.now(), changed: Number(found.changed) || Date.now(),
    shown: isObject(found.shown) ? found.shown : {},
  };
  return { about, turns };
}

/** The conversations in the text of a file, {about, turns} each. Raises an ImportError. */
export function fromJson(source) {
  let found;
  try {
    found = JSON.parse(source);
  } catch {
    throw new ImportError("The file is not JSON. Choose one that was exported here as JSON.");
  }
  if (!isObject(found) || found.format !== FORMAT) throw new ImportError(`The file is not an export of this page: its "format" is not "${FORMAT}".`);
  if (found.version !== FORMAT_VERSION) throw new ImportError(`The file has version ${JSON.stringify(found.version)}; this page reads version ${FORMAT_VERSION}.`);
  must(Array.isArray(found.conversations) && found.conversations.length > 0, "conversations", "must be a list with a conversation in it");
  return found.conversations.map((one, place) => conversationOf(one, `conversations[${place}]`));
}

/** A copy with ids of its own, for where others have them. */
export function copyOf({ about, turns }, newId) {
  const ids = new Map(turns.map((turn) => [turn.id, newId()]));
  const id = newId();
  const renamed = (key) => {
    const [parent, after] = [key.slice(0, key.indexOf("/")), key.slice(key.indexOf("/"))];
    return `${ids.get(parent) ?? ""}${after}`;
  };
  const shown = Object.fromEntries(Object.entries(about.shown).map(([key, turn]) => [renamed(key), ids.get(turn) ?? ""]));
  return {
    about: { ...about, id, shown },
    turns: turns.map((turn) => ({ ...turn, id: ids.get(turn.id), parent: ids.get(turn.parent) ?? null, conversation: id })),
  };
}
