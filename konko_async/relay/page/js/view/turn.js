// A question and the answers to it.

import { shownVersion } from "../conversations/conversation.js";
import { wordsOf } from "../composing/files.js";
import { h } from "./dom.js";
import { question } from "./question.js";
import { versions } from "./versions.js";

const LONGEST_QUESTION = 300; // characters of it in a link

export class Turn {
  /**
   * `siblings`: the versions of the question. `answerOf(column)` gives the answer that is seen of
   * each column; `actions`: edit(), showQuestion(place, by), showAnswer(column, place, by).
   */
  constructor(record, siblings, answerOf, actions) {
    this.record = record;
    this.actions = actions;
    this.answerOf = answerOf;
    this.grid = h("div", { class: "answers", "data-count": record.answers.length });
    this.link = h("a", { class: "quiet live-link", target: "_blank", rel: "noopener", hidden: true, title: "Opens these answers in a second tab, as they are written" }, "Live link");
    const edit = h("button", { type: "button", class: "quiet edit", click: () => actions.edit() }, "Edit");
    const pager = versions("question", siblings.indexOf(record), siblings.length, actions.showQuestion);
    this.asked = h("div", { class: "question" }, question(record.content), h("div", { class: "question-tools" }, pager, edit, this.link));
    this.element = h("section", { class: "turn", "data-count": record.answers.length }, this.asked, this.grid);
    this.grid.addEventListener("began", () => this.#linked());
    this.answers = record.answers.map((_, column) => this.#answer(column));
    this.grid.append(...this.answers.map((answer) => answer.element));
    this.#linked();
  }

  #answer(column) {
    const { shown, versions: all } = this.record.answers[column];
    const answer = this.answerOf(column);
    answer.setPager(versions("answer", shown, all.length, (place, by) => this.actions.showAnswer(column, place, by)));
    return answer;
  }

  /** Another version of an answer is seen. */
  redraw(column) {
    const old = this.answers[column];
    const answer = this.#answer(column);
    this.answers[column] = answer;
    if (old !== answer) old.element.replaceWith(answer.element);
    this.#linked();
    return answer;
  }

  #linked() {
    const ids = this.record.answers.map((column) => shownVersion(column).id).filter(Boolean);
    this.link.hidden = !ids.length;
    const fields = new URLSearchParams({ stream: ids.join(","), q: wordsOf(this.record.content).slice(0, LONGEST_QUESTION) });
    this.link.href = `#${fields}`;
  }
}
