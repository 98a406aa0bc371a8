// The conversation that is seen: asking, asking again, stopping, and paging through versions.

import { Answer, isLive } from "./view/answer.js";
import { Builder } from "./view/build.js";
import { leaveEnd, toEnd } from "./view/follow.js";
import { focusPager } from "./view/versions.js";
import { messagesOf, shownVersion } from "./conversations/conversation.js";
import { bodyOf, toProceed } from "./stream/request.js";
import { changed, write } from "./store.js";
import { Turn } from "./view/turn.js";

const AT_ONCE = 6; // turns that are drawn before the page shows a conversation

export class Chat {
  /** `state`: models and settings. `changedLive()` is called when answers begin or end; `edit(turn)` to have a question edited. */
  constructor(state, place, { changedLive, edit }) {
    this.state = state;
    this.place = place;
    this.changedLive = changedLive;
    this.edit = edit;
    this.conversation = null;
    this.path = [];
    this.views = new Map(); // by the id of a turn
    this.writing = new Map(); // answers that are being written, of any conversation, by their key
    this.builder = new Builder(place);
  }

  /** Whether an answer of this conversation is being written. */
  get live() {
    return [...this.writing.values()].some((one) => one.conversation === this.conversation);
  }

  /** A conversation of which an answer is being written; it goes on while another one is seen. */
  inBackground(id) {
    return [...this.writing.values()].find((one) => one.conversation.id === id)?.conversation ?? null;
  }

  /** Show a conversation, and go on reading what was not finished. */
  open(conversation) {
    this.conversation = conversation;
    this.views.clear();
    this.place.replaceChildren();
    this.path = conversation.path();
    this.#draw(this.path.map((_, place) => place).reverse());
    toEnd();
    for (const turn of conversation.turns.values()) {
      turn.answers.forEach((column, at) => {
        for (const version of column.versions) this.#resume(turn, at, version);
      });
    }
    this.changedLive();
  }

  #resume(turn, column, version) {
    if (!isLive(version) || this.writing.has(version.key)) return;
    const answer = this.views.get(turn.id)?.answers[column];
    const found = answer?.record === version ? answer : new Answer(version, this.#actions(turn, column));
    this.#isWriting(found);
    found.resume();
  }

  ask(content) {
    this.#ask(this.conversation.addAfter(this.path.at(-1) ?? null, content, this.state.models), this.path.length);
    toEnd();
  }

  /** Ask another version of a question. */
  askBeside(turn, content) {
    this.#ask(this.conversation.addBeside(turn, content, this.state.models), this.path.indexOf(turn));
  }

  #ask(turn, place) {
    this.builder.finish();
    this.#redraw(place);
    this.views.get(turn.id).answers.forEach((answer, column) => this.#begin(turn, column, answer));
  }

  /** Show which question is being edited; null: none. */
  markEdited(turn) {
    for (const view of this.views.values()) view.element.classList.toggle("edited", view.record === turn);
  }

  /** Bring a turn into view; returns whether it is one of those that are seen. */
  reveal(id) {
    this.builder.finish();
    const view = this.views.get(id);
    if (view) leaveEnd();
    view?.element.scrollIntoView({ block: "start" });
    return Boolean(view);
  }

  /** Ask again for one answer. */
  retry(turn, column) {
    if (this.views.get(turn.id)?.answers[column].live) return;
    const wasLast = turn === this.path.at(-1);
    this.conversation.addVersion(turn, column);
    const answer = this.#redrawAnswer(turn, column);
    this.#begin(turn, column, answer);
    if (!wasLast) toEnd(); // what followed belongs to the other version
  }

  /** Have an answer continued that was stopped, cut or lost. */
  proceed(turn, column) {
    const answer = this.views.get(turn.id).answers[column];
    if (!answer.canProceed) return;
    const { model, text } = answer.record;
    this.#isWriting(answer);
    answer.proceed(bodyOf(model, toProceed(this.#messages(turn, model), text), this.state.settings));
    this.#began(turn);
  }

  /** Stop what is being written in this conversation. */
  stop() {
    for (const { answer, conversation } of this.writing.values()) if (conversation === this.conversation) answer.stop();
  }

  /** Stop it, and read it no more. */
  abandon(conversation) {
    for (const [key, { answer, conversation: one }] of this.writing) {
      if (one.id !== conversation.id) continue;
      answer.stop();
      answer.leave();
      this.writing.delete(key);
    }
  }

  /** What is sent before a next question, or before one that is asked anew: of several models, the longest. */
  messagesBefore(turn = null) {
    const path = turn ? this.path.slice(0, this.path.indexOf(turn)) : this.path;
    const { models, settings } = this.state;
    const sent = models.map((model) => [{ role: "system", content: settings.system }, ...path.flatMap((one) => messagesOf(one, model))]);
    const sizes = sent.map((messages) => JSON.stringify(messages).length);
    return sent[sizes.indexOf(Math.max(...sizes))] ?? [];
  }

  #messages(turn, model) {
    return [...this.conversation.messagesBefore(turn, model), { role: "user", content: turn.content }];
  }

  #begin(turn, column, answer) {
    const { model } = answer.record;
    this.#isWriting(answer);
    answer.ask(bodyOf(model, this.#messages(turn, model), this.state.settings));
    this.#began(turn);
  }

  #began(turn) {
    this.conversation.asked(turn);
    changed(this.conversation);
    write(); // a tab may be closed at any time, and what was asked is not to be lost
    this.changedLive();
  }

  #isWriting(answer) {
    this.writing.set(answer.record.key, { answer, conversation: this.conversation });
  }

  #actions(turn, column) {
    const { conversation } = this;
    return {
      hue: column,
      retry: () => this.retry(turn, column),
      proceed: () => this.proceed(turn, column),
      changed: () => {
        conversation.unsaved.add(turn);
        changed(conversation);
      },
      ended: () => {
        for (const [key, { answer }] of this.writing) if (!answer.live) this.writing.delete(key);
        write();
        this.changedLive();
      },
    };
  }

  // What is drawn.

  #showQuestion(turn, place, by) {
    this.conversation.choose(this.conversation.siblings(turn)[place]);
    changed(this.conversation);
    const at = this.path.indexOf(turn);
    this.builder.finish();
    this.#redraw(at);
    focusPager(this.views.get(this.path[at].id).asked, by, "Question");
    this.changedLive();
  }

  #showAnswer(turn, column, place, by) {
    turn.answers[column].shown = place;
    this.conversation.unsaved.add(turn);
    changed(this.conversation);
    focusPager(this.#redrawAnswer(turn, column).element, by, "Answer");
    this.changedLive();
  }

  /** Another answer stands in its turn; what follows may be another path. */
  #redrawAnswer(turn, column) {
    this.builder.finish();
    const answer = this.views.get(turn.id).redraw(column);
    this.#redraw(this.path.indexOf(turn) + 1);
    return answer;
  }

  /** Draw the path from a place on. */
  #redraw(from) {
    for (const turn of this.path.slice(from)) {
      this.views.get(turn.id)?.element.remove();
      this.views.delete(turn.id);
    }
    this.path = this.conversation.path();
    this.#draw(this.path.map((_, place) => place).slice(from));
  }

  #draw(places) {
    const last = this.views.get(this.path.at(-1)?.id)?.element;
    for (const element of this.place.querySelectorAll(".last")) element.classList.remove("last");
    last?.classList.add("last");
    this.builder.start(places.map((place) => () => this.#drawTurn(place)), AT_ONCE);
  }

  #drawTurn(place) {
    const turn = this.path[place];
    const answerOf = (column) => {
      const version = shownVersion(turn.answers[column]);
      return this.writing.get(version.key)?.answer ?? new Answer(version, this.#actions(turn, column));
    };
    const view = new Turn(turn, this.conversation.siblings(turn), answerOf, {
      edit: () => this.edit(turn),
      showQuestion: (to, by) => this.#showQuestion(turn, to, by),
      showAnswer: (column, to, by) => this.#showAnswer(turn, column, to, by),
    });
    view.element.classList.add(place === this.path.length - 1 ? "last" : "far");
    this.views.set(turn.id, view);
    this.place.insertBefore(view.element, this.views.get(this.path[place + 1]?.id)?.element ?? null);
  }
}
