// What an empty chat shows: a line about the models, and questions to begin with.

import { about, starters } from "../stream/relay.js";
import { h } from "./dom.js";

const EXAMPLES = [
  ["Explain", "Explain how a bicycle stays upright, in three short paragraphs."],
  ["Compare", "Compare tea and coffee in a table: caffeine, taste, ritual."],
  ["Write code", "Write a Python function that finds the longest word in a text."],
  ["Imagine", "Describe a city whose streets are rivers, as a traveller's note."],
];

/** Show them, once the relay has told what it has; `ask(question)` is called for the one that is chosen. */
export function showStarters(ask) {
  const line = document.getElementById("about");
  line.textContent = about();
  line.hidden = !about();
  document.getElementById("examples").replaceChildren(...(starters() ?? EXAMPLES).map(([kind, question]) => h(
    "li",
    {},
    h("button", { type: "button", class: "example", click: () => ask(question) }, h("span", { class: "kind" }, kind), h("span", {}, question)),
  )));
}
