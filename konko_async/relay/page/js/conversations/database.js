// Conversations in IndexedDB: one row for each, and one for each turn, so that little is written at a time.

const NAME = "konko.chats";
const VERSION = 1;
const AT_A_TIME = 500; // turns that a search reads at once

let opening = null;

/** The keys of a conversation's turns. */
const turnsOf = (id) => IDBKeyRange.bound([id], [id, []]);

const result = (request) => new Promise((resolve, reject) => {
  request.addEventListener("success", () => resolve(request.result));
  request.addEventListener("error", () => reject(request.error));
});

const finished = (transaction) => new Promise((resolve, reject) => {
  transaction.addEventListener("complete", resolve);
  transaction.addEventListener("abort", () => reject(transaction.error ?? new DOMException("aborted", "AbortError")));
});

function open() {
  opening ??= new Promise((resolve, reject) => {
    const request = indexedDB.open(NAME, VERSION);
    request.addEventListener("upgradeneeded", () => {
      request.result.createObjectStore("conversations", { keyPath: "id" });
      request.result.createObjectStore("turns", { keyPath: ["conversation", "id"] });
    });
    request.addEventListener("success", () => {
      const database = request.result;
      const forget = () => { opening = null; };
      database.addEventListener("close", forget);
      database.addEventListener("versionchange", () => { // another tab deletes it
        database.close();
        forget();
      });
      resolve(database);
    });
    request.addEventListener("error", () => reject(request.error));
  });
  opening.catch(() => { opening = null; });
  return opening;
}

async function begin(mode) {
  const transaction = (await open()).transaction(["conversations", "turns"], mode);
  return { transaction, conversations: transaction.objectStore("conversations"), turns: transaction.objectStore("turns") };
}

/** What is known of each conversation, the latest first. */
export async function listAll() {
  const { conversations } = await begin("readonly");
  const found = await result(conversations.getAll());
  return found.sort((one, other) => other.changed - one.changed);
}

/** A conversation, {about, turns}; null where there is none of this id. */
export async function read(id) {
  const { conversations, turns } = await begin("readonly");
  const [about, rows] = await Promise.all([result(conversations.get(id)), result(turns.getAll(turnsOf(id)))]);
  return about ? { about, turns: rows } : null;
}

/**
 * Write some turns of a conversation, and what is known of it where that is new: all, or nothing.
 * Without news, turns of a conversation that was deleted meanwhile are not written.
 */
export async function put(id, about, rows) {
  const { transaction, conversations, turns } = await begin("readwrite");
  if (about) conversations.put(about);
  else if (!(await result(conversations.getKey(id)))) return;
  for (const row of rows) turns.put(row);
  transaction.commit(); // at once: the tab may be closed
  await finished(transaction);
}

export async function remove(id) {
  const { transaction, conversations, turns } = await begin("readwrite");
  conversations.delete(id);
  turns.delete(turnsOf(id));
  await finished(transaction);
}

/** Delete all of it, the database too. */
export async function destroy() {
  const found = await open().catch(() => null);
  found?.close();
  opening = null;
  await result(indexedDB.deleteDatabase(NAME));
}

/** Call `see(turn)` for every turn that is kept, until it returns false. */
export async function eachTurn(see) {
  let range = null;
  for (;;) {
    const { turns } = await begin("readonly");
    const rows = await result(turns.getAll(range, AT_A_TIME));
    for (const row of rows) if (see(row) === false) return;
    if (rows.length < AT_A_TIME) return;
    range = IDBKeyRange.lowerBound([rows.at(-1).conversation, rows.at(-1).id], true);
  }
}
