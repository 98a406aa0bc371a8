// What outlives a reload: in this tab's session storage, and nowhere else.

const KEY = "konko.chat";
const PAUSE = 500; // ms between two writes

const EMPTY = () => ({ turns: [], models: [], settings: { system: "", temperature: null, maxTokens: null } });

let state = EMPTY();
let kept = true;
let timer = 0;

export function load() {
  try {
    const found = JSON.parse(sessionStorage.getItem(KEY) ?? "null");
    if (found && Array.isArray(found.turns)) state = { ...EMPTY(), ...found };
  } catch { /* not ours: begin anew */ }
  addEventListener("pagehide", write);
  document.addEventListener("visibilitychange", () => document.hidden && write());
  return state;
}

/** Use a state that is not to be kept: someone else's answer. */
export function doNotKeep() {
  kept = false;
  state = EMPTY();
  return state;
}

/** Something has changed; it is written soon, text and place in the stream together. */
export function changed() {
  timer ||= setTimeout(write, PAUSE);
}

export function write() {
  clearTimeout(timer);
  timer = 0;
  if (!kept) return;
  try {
    sessionStorage.setItem(KEY, JSON.stringify(state));
  } catch {
    // Full: an old state would show a lie after a reload, so rather none.
    sessionStorage.removeItem(KEY);
  }
}
