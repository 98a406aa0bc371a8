// Puts the page together.

import { newRecord } from "./answer.js";
import { keepToken, listModels, shareToken, takeToken } from "./api.js";
import { say } from "./announce.js";
import { Chat } from "./chat.js";
import { fill, setEditing, setLive, setUpComposer, take } from "./composer.js";
import { copy, h } from "./dom.js";
import { Failure } from "./failures.js";
import { Picker } from "./picker.js";
import { setUpSettings, setUpTheme } from "./settings.js";
import { changed, doNotKeep, load, write } from "./store.js";
import { setTabs, setUpSwipes } from "./tabs.js";

const EXAMPLES = [
  ["Explain", "Explain how a bicycle stays upright, in three short paragraphs."],
  ["Compare", "Compare tea and coffee in a table: caffeine, taste, ritual."],
  ["Write code", "Write a Python function that finds the longest word in a text."],
  ["Imagine", "Describe a city whose streets are rivers, as a traveller's note."],
];
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
    this.editing = false;
    this.started = false;
    this.chat = new Chat(this.state, at("turns"), {
      changedLive: (live) => this.liveChanged(live),
      edit: (question) => this.edit(question),
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
      isLive: () => this.chat.live,
    });
    if (this.watched) this.watch();
    else this.setUpChat();
    await this.open();
  }

  setUpChat() {
    setUpSettings(this.state.settings);
    at("new-chat").addEventListener("click", () => this.newChat());
    at("examples").append(...EXAMPLES.map(([kind, question]) => h(
      "li",
      {},
      h("button", { type: "button", class: "example", click: () => this.example(question) }, h("span", { class: "kind" }, kind), h("span", {}, question)),
    )));
    if (this.state.turns.length) this.chat.restore();
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
    this.picker = new Picker(this.state, models, () => this.tabsChanged());
    this.tabsChanged();
    this.liveChanged(this.chat.live);
    if (matchMedia("(hover: hover)").matches) at("question").focus({ preventScroll: true });
  }

  /** Show what another tab asked for. */
  watch() {
    document.body.classList.add("is-watching");
    at("watching").hidden = false;
    const { ids, question } = this.watched;
    this.state.turns = [{ question, answers: ids.map((id) => ({ ...newRecord(""), id })) }];
    this.chat.restore();
    setTabs(ids.map((_, place) => `Answer ${place + 1}`));
  }

  send() {
    if (!this.started) return;
    if (this.editing) {
      this.chat.stop();
      this.chat.dropLast();
      this.cancelEdit();
    }
    this.chat.ask(take());
    this.tabsChanged();
  }

  example(question) {
    fill(question);
    this.send();
  }

  edit(question) {
    this.editing = true;
    setEditing(true);
    fill(question);
  }

  cancelEdit() {
    if (!this.editing) return;
    this.editing = false;
    setEditing(false);
  }

  newChat() {
    this.cancelEdit();
    this.chat.clear();
    write();
    this.tabsChanged();
    say("New chat");
    at("question").focus();
  }

  liveChanged(live) {
    setLive(live);
    document.body.classList.toggle("is-live", live);
    at("empty").hidden = this.watched || !this.started || this.state.turns.length > 0;
    changed();
  }

  tabsChanged() {
    setTabs(this.state.turns.at(-1)?.answers.map((answer) => answer.model) ?? []);
    this.liveChanged(this.chat.live);
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
