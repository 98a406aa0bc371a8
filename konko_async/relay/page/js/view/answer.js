// One model's answer to one question: its record, what is seen of it, and its stream.

import { say, sayAnswer } from "./announce.js";
import { copy, h, icon } from "./dom.js";
import { Failure } from "../stream/failures.js";
import { nextFrame } from "./frames.js";
import { Markdown } from "../markdown/draw.js";
import { costOf } from "../stream/relay.js";
import { Seam } from "../stream/seam.js";
import { AnswerStream } from "../stream/stream.js";

const RETRY = "M15.5 6.5A6.5 6.5 0 1 0 16.5 11M16 3v4h-4";
const PROCEED = "M4 10h11M10.5 5.5 15 10l-4.5 4.5";
const REST_PAUSE = 200; // ms
const LIVE = ["waiting", "streaming", "reconnecting"];
const RESUMED = 4000; // ms for which it is said
const STATUS = { waiting: "Waiting for the first token", reconnecting: "Connection lost. Reconnecting…", stopped: "Stopped" };
const CUT = { length: "Cut at the limit of tokens", content_filter: "Withheld by the server’s filter", tool_calls: "The model asked for a tool; there is none here" };

/** Whether an answer is being written, by its record. */
export const isLive = (record) => LIVE.includes(record.state);

/** The short name of a model: what comes after its maker's. */
export const shortName = (model) => model.slice(model.lastIndexOf("/") + 1) || model || "Model";

export class Answer {
  #markdown = null;
  #stream = null;
  #rest = 0; // the timer of what is not drawn yet
  #asked = 0; // by this page's clock; 0: another page asked
  #first = 0;
  #parts;
  #actions;
  #seam = null; // while an answer is continued: finds what was said twice
  #resumed = 0; // the timer of the word that says so
  #stopping = false;

  /** `record`: a version of an answer. `actions`: retry(), proceed(), changed(), ended(). */
  constructor(record, { hue = 0, ...actions } = {}) {
    this.record = record;
    this.#actions = actions;
    this.#parts = this.#build(hue);
    this.element = this.#parts.element;
    if (record.text) this.#write(record.text);
    if (record.thought) this.#think(record.thought);
    this.#render();
  }

  get live() {
    return isLive(this.record);
  }

  #build(hue) {
    const prose = h("div", { class: "prose" });
    const status = h("span", { class: "status" });
    const proceed = h("button", { type: "button", class: "quiet proceed", hidden: true, click: () => this.#actions.proceed() }, icon(PROCEED), "Continue");
    const standing = h("div", { class: "standing", hidden: true }, status, proceed);
    const name = h("h3", { class: "name", title: this.record.model || null }, shortName(this.record.model));
    const head = h("header", { class: "answer-head" }, h("span", { class: "dot", "aria-hidden": "true" }), name);
    const thought = h("div", { class: "thought-text" });
    const thinking = h("details", { class: "thought", hidden: true }, h("summary", {}, "Reasoning"), thought);
    const notice = h("div", { class: "notice", hidden: true });
    const figures = h("p", { class: "figures" });
    const copyButton = h("button", { type: "button", class: "quiet", click: () => copy(this.record.text, copyButton, say) }, "Copy");
    const retry = h("button", { type: "button", class: "quiet retry", click: () => this.#actions.retry() }, icon(RETRY), "Retry");
    const tools = h("div", { class: "answer-tools" }, copyButton, retry);
    const foot = h("footer", { class: "answer-foot" }, figures, tools);
    const element = h("article", { class: "answer", "data-hue": hue }, head, thinking, prose, standing, notice, foot);
    return { element, name, status, standing, proceed, tools, thinking, thought, prose, notice, figures, copyButton, retry, foot };
  }

  /** Put this before the answer's buttons: the pager of its versions; null for none. */
  setPager(pager) {
    const { tools } = this.#parts;
    tools.querySelector(".versions")?.remove();
    if (pager) tools.prepend(pager);
  }

  /** Continue it: what comes now stands behind what there is. */
  async proceed(body) {
    const { record } = this;
    const { figures, pieces, usage } = record;
    Object.assign(record, { id: null, last: 0, figures: null, finish: null, failure: null });
    record.before = { first: figures?.first ?? null, duration: figures?.duration ?? null, tokens: figures?.tokens ?? pieces, usage };
    this.#seam = new Seam(record.text);
    // What is complete is drawn once: to go on with it is to draw it again.
    this.#parts.prose.replaceChildren();
    this.#markdown = null;
    this.#write(record.text);
    await this.ask(body);
  }

  /** Ask for it. */
  async ask(body) {
    this.#asked = performance.now();
    this.#first = 0;
    this.#stopping = false;
    this.#stream = new AnswerStream(this);
    await this.#stream.ask(body);
  }

  /** Go on reading a stream that has begun. */
  async resume() {
    const { id, last } = this.record;
    if (!id) {
      this.state("failed", new Failure("interrupted"));
      return;
    }
    this.#stream = new AnswerStream(this, { id, last });
    await this.#stream.resume();
  }

  stop() {
    this.#stopping = true;
    this.#render();
    this.#stream?.stop();
  }

  leave() {
    this.#stream?.leave();
  }

  // What the stream tells.

  began(id) {
    this.record.id = id;
    this.#parts.element.dispatchEvent(new CustomEvent("began", { bubbles: true }));
    this.#actions.changed();
  }

  named(model) {
    if (this.record.model) return;
    this.record.model = model;
    this.#parts.name.textContent = shortName(model);
    this.#parts.name.title = model;
    this.#render();
  }

  text(piece) {
    this.#first ||= performance.now();
    this.record.pieces += 1;
    const fresh = this.#seam ? this.#seam.take(piece) : piece;
    this.record.text += fresh;
    this.#heard();
    if (fresh) this.#write(fresh);
  }

  /** The connection that was lost is back. */
  resumed() {
    if (this.record.state === "reconnecting") this.record.state = this.record.text ? "streaming" : "waiting";
    clearTimeout(this.#resumed);
    this.#resumed = setTimeout(() => {
      this.#resumed = 0;
      this.#render();
    }, RESUMED);
    this.#render();
    say("Connected again. The answer was resumed.");
  }

  thought(piece) {
    this.record.thought += piece;
    this.#heard();
    this.#think(piece);
  }

  finished(reason) {
    this.record.finish = reason;
  }

  figures(figures) {
    const { time_to_first_token: first, duration, usage } = figures;
    this.record.usage = added(this.record.before?.usage, usage);
    this.record.cost = costOf(this.record.model, this.record.usage); // by the price of today
    this.#setFigures(first, duration, usage?.completion_tokens ?? null);
  }

  /** Figures of an answer that was continued are of all of it, without the time between. */
  #setFigures(first, duration, tokens) {
    const { before } = this.record;
    if (before?.duration && Number.isFinite(first)) {
      this.record.figures = { first: before.first, duration: before.duration + duration - first, tokens: tokens === null ? null : before.tokens + tokens };
    } else this.record.figures = { first, duration, tokens };
  }

  state(name, detail) {
    const { record } = this;
    record.state = name;
    record.failure = name === "failed" ? detail.record : null;
    if (this.#stream) record.last = this.#stream.last;
    const live = this.live;
    if (!live) {
      const rest = this.#seam?.end();
      if (rest) {
        record.text += rest;
        this.#write(rest);
      }
      this.#seam = null;
      this.#stopping = false;
      this.#markdown?.end();
      if (!record.figures) this.#measure();
    }
    this.#render();
    this.#actions.changed();
    const spoken = shortName(record.model);
    if (name === "reconnecting" && detail === 1) say("Connection lost. Reconnecting.");
    else if (name === "failed") say(`${spoken}: ${detail.title}. ${detail.advice}`);
    else if (!live) sayAnswer(spoken, record.text, name);
    if (!live) this.#actions.ended();
  }

  /** Something has come: if it was waited for, it no longer is. */
  #heard() {
    if (this.record.state !== "streaming") {
      this.record.state = "streaming";
      this.#render();
    }
    // With the text, so that both are kept or neither; the stream counts on when this returns.
    queueMicrotask(() => {
      if (!this.#seam?.holds) this.record.last = this.#stream?.last ?? this.record.last;
    });
    this.#actions.changed();
  }

  #write(piece) {
    this.#markdown ??= new Markdown(this.#parts.prose);
    this.#markdown.write(piece);
    nextFrame(this.#draw);
  }

  #think(piece) {
    this.#parts.thinking.hidden = false;
    this.#parts.thought.append(piece);
  }

  #draw = () => {
    // What is little beside a long line waits for more; at the latest for this.
    if (this.#markdown?.draw() === false) this.#rest ||= setTimeout(this.#drawRest, REST_PAUSE);
    this.#parts.figures.textContent = this.#told();
  };

  #drawRest = () => {
    this.#rest = 0;
    this.#markdown?.draw(true);
  };

  /** Figures by our own clock, where the relay sends none. */
  #measure() {
    if (!this.#asked || !this.#first) return;
    const seconds = (to) => (to - this.#asked) / 1000;
    this.#setFigures(seconds(this.#first), seconds(performance.now()), null);
  }

  #told() {
    const { record } = this;
    let figures = record.figures;
    if (!figures && this.#asked && this.#first) {
      figures = { first: (this.#first - this.#asked) / 1000, duration: (performance.now() - this.#asked) / 1000 };
    }
    const tokens = figures?.tokens ?? record.pieces;
    const words = [];
    if (figures && Number.isFinite(figures.first)) words.push(`${seconds(figures.first)} to first token`);
    const rate = figures ? tokens / (figures.duration - figures.first) : 0;
    if (Number.isFinite(rate) && rate > 0 && tokens > 1) words.push(`${rate < 10 ? rate.toFixed(1) : Math.round(rate)} tokens/s`);
    if (tokens) words.push(`${tokens} ${tokens === 1 ? "token" : "tokens"}`);
    if (record.cost && typeof record.cost === "string") words.push(record.cost);
    return words.join(" · ");
  }

  #render() {
    const { record } = this;
    const { element, status, standing, proceed, notice, figures, copyButton, foot } = this.#parts;
    element.dataset.state = record.state;
    element.setAttribute("aria-busy", String(this.live));
    element.setAttribute("aria-label", `Answer of ${shortName(record.model)}`);
    status.textContent = this.#standing();
    proceed.hidden = !this.canProceed;
    standing.hidden = !status.textContent && proceed.hidden;
    copyButton.hidden = !record.text;
    foot.hidden = record.state === "waiting" && !record.text;
    figures.textContent = this.#told();
    notice.replaceChildren();
    notice.hidden = record.state !== "failed";
    if (record.failure) this.#card(Failure.from(record.failure), notice);
    if (record.state === "done" && !record.text) {
      notice.hidden = false;
      notice.append(h("p", { class: "fine" }, "The model ended without a word."));
    }
    nextFrame(this.#draw); // a reader at the end follows what stands below it, too
  }

  /** Whether there is something that could be continued. */
  get canProceed() {
    const { state, text, finish } = this.record;
    return Boolean(text) && (state === "stopped" || state === "failed" || (state === "done" && finish === "length"));
  }

  /** How it stands, in words, below what has come. */
  #standing() {
    const { state, finish } = this.record;
    if (this.live && this.#stopping) return "Stopping…";
    if (this.#resumed && ["waiting", "streaming", "done"].includes(state)) return "Resumed";
    if (state === "done" && Object.hasOwn(CUT, finish ?? "")) return CUT[finish];
    return STATUS[state] ?? "";
  }

  #card(failure, notice) {
    const button = h("button", { type: "button", class: "primary retry", click: () => this.#actions.retry() }, "Retry");
    const fine = failure.fine ? h("p", { class: "fine" }, failure.fine) : null;
    notice.append(h("div", { class: "error" }, h("h4", {}, failure.title), h("p", {}, failure.advice), fine, button));
    if (failure.wait) countDown(button, failure.wait);
  }
}

/** The sum of what two calls used, field by field. */
function added(one, other) {
  if (!one || !other) return other ?? one ?? null;
  const numbers = Object.entries(one).filter(([, value]) => typeof value === "number");
  return { ...other, ...Object.fromEntries(numbers.map(([name, value]) => [name, value + (other[name] ?? 0)])) };
}

const seconds = (value) => (value < 10 ? `${value.toFixed(2)} s` : `${value.toFixed(1)} s`);

/** A retry before the time that the server named would only fail again. */
function countDown(button, wait) {
  const until = performance.now() + wait * 1000;
  const tick = () => {
    const left = Math.ceil((until - performance.now()) / 1000);
    button.disabled = left > 0;
    button.textContent = left > 0 ? `Retry in ${left} s` : "Retry";
    if (left > 0 && (button.isConnected || left === Math.ceil(wait))) setTimeout(tick, 250);
  };
  tick();
}
