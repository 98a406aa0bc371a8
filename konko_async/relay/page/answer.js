// One model's answer to one question: its record, what is seen of it, and its stream.

import { say, sayAnswer } from "./announce.js";
import { copy, h, icon } from "./dom.js";
import { Failure } from "./failures.js";
import { nextFrame } from "./frames.js";
import { Markdown } from "./markdown.js";
import { changed } from "./store.js";
import { AnswerStream } from "./stream.js";

const RETRY = "M15.5 6.5A6.5 6.5 0 1 0 16.5 11M16 3v4h-4";
const LIVE = ["waiting", "streaming", "reconnecting"];
const STATUS = { waiting: "Waiting for the first token", streaming: "Writing", reconnecting: "Connection lost. Reconnecting…", stopped: "Stopped" };
const CUT = { length: "Cut at the limit of tokens", content_filter: "Withheld by the server’s filter", tool_calls: "The model asked for a tool; there is none here" };

/** A record of an answer that has not begun. */
export const newRecord = (model) => ({ model, text: "", thought: "", state: "waiting", id: null, last: 0, pieces: 0, figures: null, finish: null, failure: null });

/** The short name of a model: what comes after its maker's. */
export const shortName = (model) => model.slice(model.lastIndexOf("/") + 1) || model || "Model";

export class Answer {
  #markdown = null;
  #stream = null;
  #asked = 0; // by this page's clock; 0: another page asked
  #first = 0;
  #parts;
  #again;

  constructor(record, { hue = 0, retry = () => {}, ended = () => {} } = {}) {
    this.record = record;
    this.ended = ended;
    this.#again = retry;
    this.#parts = this.#build(hue);
    this.element = this.#parts.element;
    if (record.text) this.#write(record.text);
    if (record.thought) this.#think(record.thought);
    this.#render();
  }

  get live() {
    return LIVE.includes(this.record.state);
  }

  #build(hue) {
    const prose = h("div", { class: "prose" });
    const status = h("span", { class: "status" });
    const name = h("h3", { class: "name", title: this.record.model || null }, shortName(this.record.model));
    const head = h("header", { class: "answer-head" }, h("span", { class: "dot", "aria-hidden": "true" }), name, status);
    const thought = h("div", { class: "thought-text" });
    const thinking = h("details", { class: "thought", hidden: true }, h("summary", {}, "Reasoning"), thought);
    const notice = h("div", { class: "notice", hidden: true });
    const figures = h("p", { class: "figures" });
    const copyButton = h("button", { type: "button", class: "quiet", click: () => copy(this.record.text, copyButton, say) }, "Copy");
    const retry = h("button", { type: "button", class: "quiet retry", click: () => this.#again() }, icon(RETRY), "Retry");
    const foot = h("footer", { class: "answer-foot" }, figures, h("div", { class: "answer-tools" }, copyButton, retry));
    const element = h("article", { class: "answer", "data-hue": hue }, head, thinking, prose, notice, foot);
    return { element, name, status, thinking, thought, prose, notice, figures, copyButton, retry, foot };
  }

  /** Ask for it. */
  async ask(body) {
    this.#asked = performance.now();
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
    this.#parts.status.textContent = "Stopping…";
    this.#stream?.stop();
  }

  leave() {
    this.#stream?.leave();
  }

  // What the stream tells.

  began(id) {
    this.record.id = id;
    this.#parts.element.dispatchEvent(new CustomEvent("began", { bubbles: true }));
    changed();
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
    this.record.text += piece;
    this.record.pieces += 1;
    this.#heard();
    this.#write(piece);
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
    this.record.figures = { first, duration, tokens: usage?.completion_tokens ?? null };
  }

  state(name, detail) {
    const { record } = this;
    record.state = name;
    record.failure = name === "failed" ? detail.record : null;
    if (this.#stream) record.last = this.#stream.last;
    const live = this.live;
    if (!live) {
      this.#markdown?.end();
      if (!record.figures) this.#measure();
    }
    this.#render();
    changed();
    const spoken = shortName(record.model);
    if (name === "reconnecting" && detail === 1) say("Connection lost. Reconnecting.");
    else if (name === "failed") say(`${spoken}: ${detail.title}. ${detail.advice}`);
    else if (!live) sayAnswer(spoken, record.text, name);
    if (!live) this.ended();
  }

  /** Something has come: if it was waited for, it no longer is. */
  #heard() {
    if (this.record.state !== "streaming") {
      this.record.state = "streaming";
      this.#render();
    }
    // With the text, so that both are kept or neither; the stream counts on when this returns.
    queueMicrotask(() => { this.record.last = this.#stream?.last ?? this.record.last; });
    changed();
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
    this.#markdown?.draw();
    this.#parts.figures.textContent = this.#told();
  };

  /** Figures by our own clock, where the relay sends none. */
  #measure() {
    if (!this.#asked || !this.#first) return;
    const seconds = (to) => (to - this.#asked) / 1000;
    this.record.figures = { first: seconds(this.#first), duration: seconds(performance.now()), tokens: null };
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
    if (Object.hasOwn(CUT, record.finish ?? "")) words.push(CUT[record.finish]);
    return words.join(" · ");
  }

  #render() {
    const { record } = this;
    const { element, status, notice, figures, copyButton, foot } = this.#parts;
    element.dataset.state = record.state;
    element.setAttribute("aria-busy", String(this.live));
    element.setAttribute("aria-label", `Answer of ${shortName(record.model)}`);
    status.textContent = STATUS[record.state] ?? "";
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
    nextFrame(this.#draw); // whoever follows the end follows what stands below it, too
  }

  #card(failure, notice) {
    const button = h("button", { type: "button", class: "primary retry", click: () => this.#again() }, "Retry");
    const fine = failure.fine ? h("p", { class: "fine" }, failure.fine) : null;
    notice.append(h("div", { class: "error" }, h("h4", {}, failure.title), h("p", {}, failure.advice), fine, button));
    if (failure.wait) countDown(button, failure.wait);
  }
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
