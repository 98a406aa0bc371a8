// What outlives a reload: the chat of this tab, in its session storage; and, only where the reader
// chose so, conversations in IndexedDB.

import { Conversation } from "./conversations/conversation.js";
import * as database from "./conversations/database.js";

const KEY = "konko.chat";
const KEEP = "konko.keep"; // in the local storage: "1" once it was chosen
const PAUSE = 500; // ms between two writes

const EMPTY = () => ({ models: [], settings: { system: "", temperature: null, maxTokens: null } });

const state = EMPTY();
let current = new Conversation();
let keeps = false;
let watching = false;
let timer = 0;
let warned = false; // that the chat does not fit
const dirty = new Set(); // conversations, for IndexedDB
const saving = new Set(); // what is on its way there: {id, about, turns}
const gone = new Set(); // ids of conversations that were deleted: nothing is written to them any more
const listeners = new Set();

/** A chat that is not kept does not fit into its tab's storage either. */
export class TooLarge extends Error {}

/** Be told when what is kept has become another: `listener({error})`, or {deleted: id}, or {saved: true}, or {}. */
export function onKept(listener) {
  listeners.add(listener);
}

const channel = "BroadcastChannel" in window ? new BroadcastChannel(KEY) : null;
channel?.addEventListener("message", ({ data }) => {
  keeps = chosen();
  if (data?.deleted) gone.add(data.deleted);
  if (data?.renamed === current.id) Object.assign(current.about, { title: data.title, named: true });
  tell(data ?? {}, { here: true });
});

function tell(news, { here = false } = {}) {
  for (const listener of listeners) listener(news);
  if (!here && !news.error) channel?.postMessage(news);
}

function chosen() {
  try {
    return localStorage.getItem(KEEP) === "1";
  } catch {
    return false;
  }
}

/** Whether conversations are kept in this browser. */
export const isKeeping = () => keeps && !watching;

/** The conversation that is seen. */
export const conversation = () => current;

function sessionRead() {
  try {
    return JSON.parse(sessionStorage.getItem(KEY) ?? "null") ?? {};
  } catch {
    return {}; // not ours: begin anew
  }
}

/** What was chosen in this tab: models and settings. The conversation comes with `restore`. */
export function load() {
  keeps = chosen();
  const found = sessionRead();
  if (Array.isArray(found.models)) state.models = found.models;
  if (found.settings) Object.assign(state.settings, found.settings);
  addEventListener("pagehide", write);
  document.addEventListener("visibilitychange", () => document.hidden && write());
  return state;
}

/** The conversation that this tab had open. */
export async function restore() {
  const { open, conversation: plain, pending } = sessionRead();
  if (plain?.about && Array.isArray(plain.turns)) {
    // Of a tab that kept nothing; or that could not write to the database before it was left.
    current = new Conversation(plain.about, plain.turns);
    if (keeps) changed(current, { all: true });
  } else if (keeps && open) {
    try {
      if (pending) await database.put(open, pending.about, pending.turns);
      const found = await database.read(open);
      if (found) current = new Conversation(found.about, found.turns);
    } catch (error) {
      tell({ error });
    }
  }
  return current;
}

/** Use a state that is not to be kept: someone else's answer. */
export function doNotKeep() {
  watching = true;
  return state;
}

/** Let another conversation be the one that is seen. */
export function setCurrent(other) {
  current = other;
  changed();
}

/** Something has changed; it is written soon, text and place in the stream together. */
export function changed(what = null, { all = false } = {}) {
  if (what && all) {
    for (const turn of what.turns.values()) what.unsaved.add(turn);
    what.aboutUnsaved = true;
  }
  if (what && isKeeping() && what.turns.size) dirty.add(what);
  timer ||= setTimeout(write, PAUSE);
}

export function write() {
  clearTimeout(timer);
  timer = 0;
  if (watching) return;
  if (keeps) for (const one of dirty) save(one);
  dirty.clear();
  const chat = keeps ? { pending: [...saving].find(({ id }) => id === current.id) } : { conversation: current.plain() };
  const rest = { ...state, open: keeps ? current.id : null };
  // Full: an old state would show a lie after a reload, so rather none.
  const fits = sessionWrite({ ...rest, ...chat });
  if (!fits && !sessionWrite(rest)) sessionStorage.removeItem(KEY);
  if (!fits && !keeps && !warned) tell({ error: new TooLarge("This chat has become too large to survive a reload of the page. Switch “Keep conversations” on, or export it.") });
  warned = !fits;
}

function sessionWrite(value) {
  try {
    sessionStorage.setItem(KEY, JSON.stringify(value));
    return true;
  } catch {
    return false;
  }
}

async function save(one) {
  const turns = [...one.unsaved];
  const news = one.aboutUnsaved;
  one.unsaved.clear();
  one.aboutUnsaved = false;
  if (gone.has(one.id)) return;
  // A write that ends after the page was left may be lost: the session storage has it until then.
  const work = { id: one.id, about: news ? one.about : null, turns };
  saving.add(work);
  try {
    await database.put(one.id, work.about, turns);
    if (news) tell({ saved: true });
  } catch (error) {
    for (const turn of turns) one.unsaved.add(turn); // with the next change
    one.aboutUnsaved ||= news;
    tell({ error });
  } finally {
    saving.delete(work);
  }
}

/** Begin to keep conversations, with the one that is seen. Throws where the browser does not let us. */
export async function keep() {
  await database.listAll();
  localStorage.setItem(KEEP, "1");
  keeps = true;
  navigator.storage?.persist?.().catch(() => {}); // else the browser may make room where it needs it
  changed(current, { all: true });
  write();
  tell({});
}

/** Keep nothing any more, and delete what was kept. The chat that is seen stays in its tab. */
export async function keepNothing() {
  keeps = false;
  localStorage.removeItem(KEEP);
  dirty.clear();
  await database.destroy();
  write();
  tell({});
}

/** Delete one conversation. */
export async function forget(id) {
  gone.add(id);
  await database.remove(id);
  tell({ deleted: id });
}

/** Rename one conversation. */
export async function rename(id, title) {
  const about = current.id === id ? current.about : (await database.read(id))?.about;
  if (!about) return;
  Object.assign(about, { title, named: true });
  await database.put(id, about, []);
  tell({ renamed: id, title });
}

/** Keep conversations that came from a file: {about, turns} each. */
export async function adopt(found) {
  for (const { about, turns } of found) {
    gone.delete(about.id);
    await database.put(about.id, about, turns);
  }
  tell({});
}
