// The conversations: a list at the side where there is room, else a drawer above the page.

import * as database from "../conversations/database.js";
import { Conversation, newId } from "../conversations/conversation.js";
import { fileName, toJson, toMarkdown } from "../conversations/exports.js";
import { copyOf, fromJson, ImportError } from "../conversations/imports.js";
import { search } from "../conversations/search.js";
import * as store from "../store.js";
import { say } from "../view/announce.js";
import { askFirst } from "./ask.js";
import { JSON_TYPE, MARKDOWN, save } from "./files.js";
import { Rows } from "./rows.js";

const WIDE = matchMedia("(min-width: 68rem)");
const OPEN = "konko.side"; // in the local storage: "1" where the list stands beside the page
const PAUSE = 150; // ms after a key before a search begins
const REDRAW = 100; // ms
const WIDTH = 224; // px of a menu, by side.css
const KEPT = "Conversations are kept in this browser, on this device only. Whoever uses this browser can read them.";
const NOT_KEPT = "Nothing is kept: a chat is gone when you close its tab.";

const at = (id) => document.getElementById(id);

export class Side {
  /** `page`: newChat(), open(id, turn), show(conversation), live() → ids of those being written. */
  constructor(page) {
    this.page = page;
    this.query = "";
    this.timer = 0;
    this.asked = 0; // searches, of which the last one counts
    this.row = null; // that the menu is of
    this.left = null; // the row that was deleted last: {id, place}
    this.rows = new Rows(at("side-list"), {
      open: (row) => this.#open(row),
      more: (row, button) => this.#showMenu(row, button),
      rename: (id, title) => this.#rename(id, title),
      remove: (row) => this.#remove(row),
    });
  }

  setUp() {
    at("open-side").addEventListener("click", () => this.toggle());
    at("close-side").addEventListener("click", () => this.close());
    at("side-new").addEventListener("click", () => this.#then(() => this.page.newChat()));
    at("drawer").addEventListener("click", (event) => event.target === at("drawer") && this.close());
    at("drawer").addEventListener("close", () => this.#placed());
    WIDE.addEventListener("change", () => this.#arrange());
    this.#setUpSearch();
    this.#setUpKeeping();
    this.#setUpFiles();
    this.#setUpMenu();
    store.onKept((news) => this.#news(news));
    this.#keeping();
    this.#arrange();
    this.refresh();
  }

  // Where it stands.

  get isOpen() {
    return !at("side").hidden;
  }

  #wanted() {
    try {
      const chosen = localStorage.getItem(OPEN);
      return chosen === null ? store.isKeeping() : chosen === "1";
    } catch {
      return false;
    }
  }

  /** Beside the page as it was left; a drawer opens when it is asked for only. */
  #arrange() {
    if (at("drawer").open) at("drawer").close();
    at("side").hidden = !(WIDE.matches && this.#wanted());
    this.#placed();
  }

  #placed() {
    const side = at("side");
    if (!at("drawer").open && side.parentElement === at("drawer")) {
      at("drawer").after(side);
      side.hidden = true;
    }
    document.body.classList.toggle("has-side", this.isOpen && WIDE.matches);
    at("open-side").setAttribute("aria-expanded", String(this.isOpen));
  }

  open() {
    if (this.isOpen) return;
    at("side").hidden = false;
    if (WIDE.matches) this.#remember("1");
    else {
      at("drawer").append(at("side"));
      at("drawer").showModal();
    }
    this.#placed();
    this.refresh();
  }

  close() {
    if (at("drawer").open) at("drawer").close();
    else {
      at("side").hidden = true;
      this.#remember("0");
    }
    this.#placed();
    at("open-side").focus();
  }

  toggle() {
    if (this.isOpen) this.close();
    else {
      this.open();
      (at("side-search-box").hidden ? at("side-new") : at("side-search")).focus();
    }
  }

  #remember(open) {
    try {
      localStorage.setItem(OPEN, open);
    } catch { /* it holds until the page is closed */ }
  }

  /** Do something with the page, which a drawer would cover. */
  #then(act) {
    if (at("drawer").open) this.close();
    act();
  }

  // The list.

  /** Something has changed that the list shows. */
  changed() {
    this.timer ||= setTimeout(() => this.refresh(), REDRAW);
  }

  async refresh() {
    clearTimeout(this.timer);
    this.timer = 0;
    if (!this.isOpen) return;
    const asked = this.asked += 1;
    const given = () => asked !== this.asked;
    let found = [];
    const { query } = this;
    try {
      const all = store.isKeeping() ? await database.listAll() : [];
      found = query ? await search(all, query, given) : all.map((about) => ({ about, turn: null, excerpt: "" }));
    } catch (error) {
      this.#problem(error);
    }
    if (given()) return;
    const nothing = query ? `No conversation has “${query}”.` : store.isKeeping() ? "Your conversations will stand here." : "";
    this.rows.show(found, { current: store.conversation().id, live: this.page.live(), grouped: !query, nothing });
    this.#goOn(found);
    if (query && query !== this.said) say(found.length === 1 ? "One conversation found" : `${found.length} conversations found`);
    this.said = query;
  }

  #open(row) {
    this.#then(() => this.page.open(row.about.id, row.turn));
  }

  #setUpSearch() {
    const field = at("side-search");
    let timer = 0;
    field.addEventListener("input", () => {
      clearTimeout(timer);
      timer = setTimeout(() => {
        this.query = field.value.trim();
        this.refresh();
      }, PAUSE);
    });
    field.addEventListener("keydown", (event) => {
      if (event.key === "ArrowDown") {
        event.preventDefault();
        this.rows.focusFirst();
      } else if (event.key === "Escape" && field.value) {
        event.preventDefault(); // the first one empties the field
        field.value = "";
        field.dispatchEvent(new Event("input"));
      }
    });
  }

  focusSearch() {
    this.open();
    (at("side-search-box").hidden ? at("side-new") : at("side-search")).focus();
  }

  // Kept, or not.

  #keeping() {
    const keeps = store.isKeeping();
    at("keep").checked = keeps;
    at("keep-text").textContent = keeps ? KEPT : NOT_KEPT;
    at("side-search-box").hidden = !keeps;
    at("export-all").hidden = !keeps;
    at("privacy").textContent = keeps ? "Conversations are kept in this browser." : NOT_KEPT;
    at("privacy-change").textContent = keeps ? "See them" : "Keep conversations";
  }

  #setUpKeeping() {
    at("keep").addEventListener("change", () => (at("keep").checked ? this.#keep() : this.#keepNothing()));
    at("privacy-change").addEventListener("click", async () => {
      if (!store.isKeeping()) await this.#keep();
      this.open();
    });
  }

  async #keep() {
    try {
      await store.keep();
      say("Conversations are kept from now on");
    } catch (error) {
      this.#problem(error);
    }
    this.#keeping();
  }

  async #keepNothing() {
    const count = (await database.listAll().catch(() => [])).length;
    const sure = !count || await askFirst({
      title: "Keep nothing any more?",
      text: `${count === 1 ? "The conversation that is" : `All ${count} conversations that are`} kept in this browser will be deleted. The chat that you see stays until you close its tab.`,
      yes: "Delete and keep nothing",
      other: { label: "Export all first", act: () => this.#exportAll() },
    });
    if (sure) {
      try {
        await store.keepNothing();
        say("Nothing is kept any more");
      } catch (error) {
        this.#problem(error);
      }
    }
    this.#keeping();
    at("keep").focus();
  }

  #news(news) {
    if (news.error) this.#problem(news.error);
    else if (news.saved) at("side-problem").hidden = true;
    this.#keeping();
    this.changed();
  }

  #problem(error) {
    const full = error?.name === "QuotaExceededError";
    const words = error instanceof ImportError || error instanceof store.TooLarge ? error.message
      : full ? "The browser has no more room: what is new is not kept. Export and delete conversations, then ask again."
        : `The browser does not let this page keep conversations (${error?.message || error?.name || "unknown reason"}). Check its settings for this site.`;
    const known = !at("side-problem").hidden && at("side-problem").textContent === words;
    at("side-problem").textContent = words;
    at("side-problem").hidden = false;
    if (!known) this.open(); // a reader who closed it has read it
  }

  // Of one conversation.

  #setUpMenu() {
    const menu = at("chat-menu");
    menu.addEventListener("click", ({ target }) => {
      const act = target.closest("[data-do]")?.dataset.do;
      if (!act) return;
      menu.hidePopover();
      if (act === "rename") this.rows.rename(this.row.about.id);
      else if (act === "delete") this.#remove(this.row);
      else this.#exportKept(this.row.about.id, act);
    });
    for (const one of [menu, at("export-menu")]) {
      one.addEventListener("toggle", (event) => event.newState === "open" && one.querySelector("button:not([hidden])").focus());
      one.addEventListener("keydown", (event) => arrows(event, one));
    }
    at("export-menu").addEventListener("beforetoggle", () => put(at("export-menu"), at("export")));
  }

  #showMenu(row, button) {
    this.row = row;
    at("chat-menu-title").textContent = `Actions for ${row.about.title || "Chat"}`;
    put(at("chat-menu"), button);
    at("chat-menu").showPopover({ source: button });
  }

  async #rename(id, title) {
    if (title !== null) {
      try {
        await store.rename(id, title);
        say("Renamed");
      } catch (error) {
        this.#problem(error);
      }
    }
    this.refresh();
  }

  async #remove(row) {
    const title = row.about.title || "Chat";
    // By its id: the list may have been drawn anew, of other objects, since its menu was opened.
    const place = this.rows.rows.findIndex(({ about }) => about.id === row.about.id);
    if (!await askFirst({ title: "Delete this conversation?", text: `“${title}” cannot be brought back.`, yes: "Delete" })) return;
    try {
      await store.forget(row.about.id);
    } catch (error) {
      this.#problem(error);
      return;
    }
    say("Deleted");
    this.left = { id: row.about.id, place };
    await this.refresh();
  }

  /** Once a row that was deleted is gone, the keyboard goes on with the one in its place. */
  #goOn(found) {
    if (!this.left || found.some(({ about }) => about.id === this.left.id)) return;
    const { items } = this.rows;
    const next = items[Math.min(this.left.place, items.length - 1)];
    this.left = null;
    (next?.querySelector(".chat-open") ?? at("side-new")).focus();
  }

  // Files.

  #setUpFiles() {
    at("export-markdown").addEventListener("click", () => this.#exportOne(store.conversation(), "markdown"));
    at("export-json").addEventListener("click", () => this.#exportOne(store.conversation(), "json"));
    at("export-all").addEventListener("click", () => this.#exportAll());
    at("export-menu").addEventListener("click", ({ target }) => target.closest("button") && at("export-menu").hidePopover());
    at("import").addEventListener("click", () => at("import-file").click());
    at("import-file").addEventListener("change", async () => {
      const [file] = at("import-file").files;
      if (file) await this.#import(file);
      at("import-file").value = "";
    });
  }

  #exportOne(conversation, how) {
    if (!conversation.turns.size) {
      say("There is nothing to export yet");
      return;
    }
    const { title } = conversation.about;
    if (how === "json") save(toJson([conversation.plain()]), fileName(title, "json"), JSON_TYPE);
    else save(toMarkdown(conversation), fileName(title, "md"), MARKDOWN);
    say("Exported");
  }

  async #exportKept(id, how) {
    const current = store.conversation();
    const found = current.id === id ? current.plain() : await database.read(id);
    if (found) this.#exportOne(new Conversation(found.about, found.turns), how);
  }

  async #exportAll() {
    try {
      store.write();
      const all = await database.listAll();
      const found = [];
      for (const { id } of all) found.push(await database.read(id));
      save(toJson(found), fileName(`konko conversations ${new Date().toISOString().slice(0, 10)}`, "json"), JSON_TYPE);
      say(`${found.length} exported`);
    } catch (error) {
      this.#problem(error);
    }
  }

  async #import(file) {
    try {
      const found = fromJson(await file.text());
      if (!store.isKeeping()) {
        if (found.length > 1) throw new ImportError(`The file has ${found.length} conversations, and nothing is kept. Switch “Keep conversations” on, then import it again.`);
        this.#then(() => this.page.show(new Conversation(found[0].about, found[0].turns)));
      } else await this.#adopt(found);
      at("side-problem").hidden = true;
    } catch (error) {
      this.#problem(error);
    }
  }

  /** What is here already is not imported twice; what went on elsewhere stands beside what is here. */
  async #adopt(found) {
    const here = new Map((await database.listAll()).map((about) => [about.id, about]));
    const fresh = found.filter(({ about }) => here.get(about.id)?.changed !== about.changed);
    const taken = new Set(here.keys());
    const ready = fresh.map((one) => (taken.has(one.about.id) ? copyOf(one, newId) : one));
    await store.adopt(ready);
    const known = found.length - fresh.length;
    say(`${ready.length} imported${known ? `, ${known} were here already` : ""}`);
    if (ready.length) this.page.open(ready[0].about.id);
  }
}

/** Arrows go through a menu's buttons. */
function arrows(event, menu) {
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (!step) return;
  event.preventDefault();
  const buttons = [...menu.querySelectorAll("button:not([hidden])")];
  buttons.at((buttons.indexOf(document.activeElement) + step) % buttons.length).focus();
}

/** Put a menu beside its button, within the window. */
function put(menu, button) {
  const box = button.getBoundingClientRect();
  const below = box.bottom < innerHeight - 220;
  menu.style.left = `${Math.max(8, Math.min(box.right - WIDTH, innerWidth - WIDTH - 8))}px`;
  menu.style.top = below ? `${box.bottom + 4}px` : "auto";
  menu.style.bottom = below ? "auto" : `${innerHeight - box.top + 4}px`;
}
