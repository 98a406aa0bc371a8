// A question and the answers to it.

import { Answer } from "./answer.js";
import { h } from "./dom.js";

const LONGEST_QUESTION = 300; // characters of it in a link

export class Turn {
  /** `actions`: edit(turn), retry(turn, answer), ended(turn). */
  constructor(record, actions) {
    this.record = record;
    this.actions = actions;
    this.answers = [];
    this.grid = h("div", { class: "answers" });
    this.link = h("a", { class: "quiet live-link", target: "_blank", rel: "noopener", hidden: true, title: "Opens these answers in a second tab, as they are written" }, "Live link");
    this.editButton = h("button", { type: "button", class: "quiet edit", click: () => actions.edit(this) }, "Edit");
    const tools = h("div", { class: "question-tools" }, this.editButton, this.link);
    const text = h("h2", { class: "question-text" }, record.question);
    this.element = h("section", { class: "turn" }, h("div", { class: "question" }, text, tools), this.grid);
    this.grid.addEventListener("began", () => this.#linked());
    for (const answer of record.answers) this.#show(answer);
    this.#linked();
  }

  #show(record) {
    const answer = new Answer(record, {
      hue: this.answers.length,
      retry: () => this.actions.retry(this, answer),
      ended: () => this.actions.ended(this),
    });
    this.answers.push(answer);
    this.grid.append(answer.element);
    this.element.dataset.count = this.answers.length;
  }

  /** Put a fresh answer into the place of one; returns it. */
  replace(old, record) {
    const at = this.answers.indexOf(old);
    const answer = new Answer(record, {
      hue: at,
      retry: () => this.actions.retry(this, answer),
      ended: () => this.actions.ended(this),
    });
    this.record.answers[at] = record;
    this.answers[at] = answer;
    old.element.replaceWith(answer.element);
    this.#linked();
    return answer;
  }

  #linked() {
    const ids = this.record.answers.map((answer) => answer.id).filter(Boolean);
    this.link.hidden = !ids.length;
    const fields = new URLSearchParams({ stream: ids.join(","), q: this.record.question.slice(0, LONGEST_QUESTION) });
    this.link.href = `#${fields}`;
  }

  get live() {
    return this.answers.some((answer) => answer.live);
  }

  /** What a model is told of this turn when a later question is asked. */
  messages(model) {
    const usable = this.record.answers.filter((answer) => answer.text);
    const answer = usable.find((one) => one.model === model) ?? usable[0];
    const said = [{ role: "user", content: this.record.question }];
    return answer ? [...said, { role: "assistant", content: answer.text }] : [];
  }
}
