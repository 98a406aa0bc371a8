// Puts the page together.

import { Conversation, shownVersion } from "./conversations/conversation.js";
import { read } from "./conversations/database.js";
import { keepToken, listModels, shareToken, takeToken } from "./stream/api.js";
import { say } from "./view/announce.js";
import { Chat } from "./chat.js";
import { Side } from "./side/side.js";
import { fill, peek, setEditing, setLive, setUpComposer, take } from "./view/composer.js";
import { sayLimits } from "./composing/attachments.js";
import { copy } from "./view/dom.js";
import { Failure } from "./stream/failures.js";
import { Picker } from "./view/picker.js";
import { limitSettings, setUpSettings, setUpTheme } from "./view/settings.js";
import { showStarters } from "./view/starters.js";
import { changed, conversation, doNotKeep, isKeeping, load, onKept, restore, setCurrent, write } from "./store.js";
import { setTabs, setUpSwipes } from "./view/tabs.js";

const MOST_STREAMS = 4;

const at = (id) => document.getElementById(id);

/** The streams that the address names, for a second tab. */
function watched() {
  const fields = new URLSearchParams(location.hash.slice(1));
  const ids = (fields.get("stream") ?? "").split(",").filter((id) => /^[\w-]{1,128}$/.test(id));
  return ids.length ? { ids: ids.slice(0, MOST_STREAMS), question: fields.get("q") || "A shared question" } : null;
}

class App {
  constructor() {
    this.watched = watched();
    this.state = this.watched ? doNotKeep() : load();
    this.editing = null; // the turn whose question is edited
    this.draft = ""; // what stood in the composer before
    this.started = false;
    this.chat = new Chat(this.state, at("turns"), {
      changedLive: () => this.liveChanged(),
      edit: (turn) => this.edit(turn),
    });
    this.side = new Side({
      newChat: () => this.newChat(),
      open: (id, turn) => this.openKept(id, turn),
      show: (other) => this.show(other),
      live: () => new Set([...this.chat.writing.values()].map((one) => one.conversation.id)),
    });
  }

  async start() {
    setUpTheme();
    setUpCopying();
    setUpSwipes();
    this.setUpGate();
    setUpComposer({
      send: () => this.send(),
      stop: () => this.chat.stop(),
      cancel: () => this.cancelEdit(),
      escape: () => (this.editing ? this.cancelEdit() : this.chat.live && this.chat.stop()),
      editLast: () => this.chat.path.length && this.edit(this.chat.path.at(-1)),
      isLive: () => this.chat.live,
      messages: () => this.chat.messagesBefore(this.editing),
    });
    if (this.watched) this.watch();
    else await this.setUpChat();
    await this.open();
  }

  async setUpChat() {
    setUpSettings(this.state.settings);
    this.side.setUp();
    at("new-chat").addEventListener("click", () => this.newChat());
    document.addEventListener("keydown", (event) => this.shortcut(event));
    onKept(({ deleted }) => deleted && this.deleted(deleted));
    this.show(await restore(), { quietly: true });
  }

  /** Ask the relay what there is; until it answers, there is nothing to do. */
  async open() {
    let models;
    try {
      models = await listModels();
    } catch (error) {
      this.showGate(error instanceof Failure ? error : new Failure("unreachable"));
      return;
    }
    at("gate").hidden = true;
    if (this.started) return;
    this.started = true;
    at("composer").hidden = false;
    if (this.watched) return;
    limitSettings();
    sayLimits();
    showStarters((question) => this.example(question));
    this.picker = new Picker(this.state, models, () => this.tabsChanged());
    this.tabsChanged();
    if (matchMedia("(hover: hover)").matches) at("question").focus({ preventScroll: true });
  }

  /** Show what another tab asked for. */
  watch() {
    document.body.classList.add("is-watching");
    at("watching").hidden = false;
    const { ids, question } = this.watched;
    const shared = new Conversation();
    const turn = shared.addAfter(null, question, ids.map(() => ""));
    turn.answers.forEach((column, place) => { shownVersion(column).id = ids[place]; });
    setCurrent(shared);
    this.chat.open(shared);
    setTabs(ids.map((_, place) => `Answer ${place + 1}`));
  }

  send() {
    if (!this.started) return;
    const { editing } = this;
    const content = take();
    this.cancelEdit();
    if (editing) this.chat.askBeside(editing, content);
    else this.chat.ask(content);
    this.tabsChanged();
  }

  example(question) {
    fill(question);
    this.send();
  }

  edit(turn) {
    if (!this.editing) this.draft = peek();
    this.editing = turn;
    const place = this.chat.path.indexOf(turn);
    setEditing(place === this.chat.path.length - 1 ? "Editing your last question" : `Editing your question ${place + 1} of ${this.chat.path.length}`);
    this.chat.markEdited(turn);
    fill(turn.content);
  }

  /** Leave editing; what was being written before stands in the composer again. */
  cancelEdit() {
    if (!this.editing) return;
    this.editing = null;
    setEditing(null);
    this.chat.markEdited(null);
    fill(this.draft);
    this.draft = "";
  }

  /** Keys that work everywhere on the page: those of ChatGPT. */
  shortcut(event) {
    if (!(event.ctrlKey || event.metaKey) || event.altKey || event.isComposing) return;
    const key = event.key.toLowerCase();
    if (key === "o" && event.shiftKey) this.newChat();
    else if (key === "k" && !event.shiftKey) this.side.focusSearch();
    else return;
    event.preventDefault();
  }

  /** Begin anew. Where nothing is kept, what is being written is stopped, as nobody would read it. */
  newChat() {
    if (!isKeeping()) this.chat.abandon(conversation());
    this.show(new Conversation(), { quietly: true });
    write();
    say("New chat");
    at("question").focus();
  }

  /** Let this conversation be the one that is seen. */
  show(other, { quietly = false } = {}) {
    this.cancelEdit();
    setCurrent(other);
    this.chat.open(other);
    this.tabsChanged();
    this.side.changed();
    if (!quietly) say(`Conversation: ${other.about.title}`);
  }

  /** Open a conversation that is kept, at a turn if one is named. */
  async openKept(id, turn = null) {
    if (id !== conversation().id) {
      write();
      const found = this.chat.inBackground(id) ?? await read(id).then((one) => one && new Conversation(one.about, one.turns));
      if (!found) return;
      this.show(found);
    }
    if (!turn || !this.chat.reveal(turn)) at("question").focus({ preventScroll: true });
  }

  /** A conversation was deleted, here or in another tab. */
  deleted(id) {
    this.chat.abandon({ id });
    if (id !== conversation().id) return;
    this.show(new Conversation(), { quietly: true });
    say("This conversation was deleted");
  }

  liveChanged() {
    const { live } = this.chat;
    setLive(live);
    document.body.classList.toggle("is-live", live);
    at("empty").hidden = this.watched || !this.started || this.chat.path.length > 0;
    this.side.changed();
    changed();
  }

  tabsChanged() {
    setTabs(this.chat.path.at(-1)?.answers.map((column) => shownVersion(column).model) ?? []);
    this.liveChanged();
  }

  setUpGate() {
    const again = () => this.open();
    at("gate-retry").addEventListener("click", again);
    at("gate-form").addEventListener("submit", (event) => {
      event.preventDefault();
      keepToken(at("gate-token").value);
      at("gate-token").value = "";
      again();
    });
    shareToken(() => (this.watched ? location.reload() : again()));
  }

  showGate(failure) {
    const asks = failure.type === "authentication_error";
    at("picker-label").textContent = asks ? "Locked" : "Offline";
    at("gate-title").textContent = failure.title;
    at("gate-text").textContent = failure.advice;
    at("gate-fine").textContent = asks ? "" : failure.fine;
    at("gate-form").hidden = !asks;
    at("gate-retry").hidden = asks;
    at("gate").hidden = false;
    if (asks) at("gate-token").focus();
    say(`${failure.title}. ${failure.advice}`);
  }
}

/** The buttons of code, wherever a model writes some. */
function setUpCopying() {
  at("turns").addEventListener("click", ({ target }) => {
    if (target.matches(".copy-code")) copy(target.closest(".code").querySelector("code").textContent, target, say);
  });
}

takeToken();
const app = new App();
addEventListener("hashchange", () => {
  takeToken();
  if (watched() || app.watched) location.reload();
  else app.open();
});
app.start();
