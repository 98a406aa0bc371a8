// The conversation: asking, asking again, stopping, and what is kept of it.

import { newRecord } from "./answer.js";
import { toEnd } from "./follow.js";
import { changed } from "./store.js";
import { Turn } from "./turn.js";

export class Chat {
  /** `changedLive(live)` is called when answers begin or end; `edit(question)` to have one edited. */
  constructor(state, place, { changedLive, edit }) {
    this.state = state;
    this.place = place;
    this.changedLive = changedLive;
    this.edit = edit;
    this.turns = [];
    this.actions = {
      edit: (turn) => turn === this.turns.at(-1) && this.edit(turn.record.question),
      retry: (turn, answer) => this.retry(turn, answer),
      ended: () => this.changedLive(this.live),
    };
  }

  get live() {
    return this.turns.some((turn) => turn.live);
  }

  /** Show what was kept, and go on reading what was not finished. */
  restore() {
    for (const record of this.state.turns) this.#add(record);
    toEnd();
    for (const turn of this.turns) {
      for (const answer of turn.answers) if (answer.live) answer.resume();
    }
    this.changedLive(this.live);
  }

  ask(question) {
    const record = { question, answers: this.state.models.map(newRecord) };
    this.state.turns.push(record);
    const turn = this.#add(record);
    for (const answer of turn.answers) this.#begin(turn, answer);
    toEnd();
    changed();
    this.changedLive(true);
  }

  /** Ask again for one answer of the last turn. */
  retry(turn, answer) {
    if (turn !== this.turns.at(-1) || answer.live) return;
    const again = turn.replace(answer, newRecord(answer.record.model));
    this.#begin(turn, again);
    changed();
    this.changedLive(true);
  }

  /** Take the last question back. */
  dropLast() {
    const turn = this.turns.pop();
    for (const answer of turn?.answers ?? []) answer.leave();
    turn?.element.remove();
    this.state.turns.pop();
    this.#mark();
    changed();
  }

  stop() {
    for (const turn of this.turns) for (const answer of turn.answers) if (answer.live) answer.stop();
  }

  /** Begin anew; what is being written is stopped, as nobody would read it. */
  clear() {
    this.stop();
    while (this.turns.length) this.dropLast();
    this.changedLive(false);
  }

  #add(record) {
    const turn = new Turn(record, this.actions);
    this.turns.push(turn);
    this.place.append(turn.element);
    this.#mark();
    return turn;
  }

  /** Only the last turn can be asked again. */
  #mark() {
    for (const turn of this.turns) turn.element.classList.toggle("last", turn === this.turns.at(-1));
  }

  #begin(turn, answer) {
    const { system, temperature, maxTokens } = this.state.settings;
    const { model } = answer.record;
    const earlier = this.turns.slice(0, this.turns.indexOf(turn)).flatMap((one) => one.messages(model));
    const messages = [...earlier, { role: "user", content: turn.record.question }];
    if (system) messages.unshift({ role: "system", content: system });
    const body = { model, messages, stream: true, stream_options: { include_usage: true } };
    if (temperature !== null) body.temperature = temperature;
    if (maxTokens !== null) body.max_tokens = maxTokens;
    answer.ask(body);
  }
}
