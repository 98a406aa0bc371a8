// Which models are asked: one to four of those that the relay offers.

import { shortName } from "./answer.js";
import { h } from "./dom.js";
import { changed } from "../store.js";

const MOST = 4;
const MANY = 8; // from this number on there is a field to find one in

const at = (id) => document.getElementById(id);

export class Picker {
  /** `state.models` are those chosen; `chosen` is called when others are. */
  constructor(state, offered, chosen) {
    this.state = state;
    this.offered = offered;
    this.chosen = chosen;
    this.boxes = new Map();
    const kept = state.models.filter((model) => offered.includes(model)).slice(0, MOST);
    state.models = kept.length ? kept : offered.slice(0, 1);
    at("picker-list").replaceChildren(...offered.map((model) => this.#row(model)));
    const filter = at("picker-filter");
    filter.hidden = offered.length < MANY;
    filter.addEventListener("input", () => this.#filter(filter.value.trim().toLowerCase()));
    at("picker-open").disabled = !offered.length;
    at("picker").addEventListener("toggle", (event) => event.newState === "open" && this.#opened());
    this.#show();
  }

  #row(model) {
    const box = h("input", { type: "checkbox", value: model, change: () => this.#toggle(model, box.checked) });
    this.boxes.set(model, box);
    const slash = model.lastIndexOf("/") + 1;
    const maker = slash ? h("span", { class: "maker" }, model.slice(0, slash - 1)) : null;
    return h("label", { class: "picker-row" }, box, h("span", { class: "dot", "aria-hidden": "true" }), h("span", { class: "picker-name" }, model.slice(slash)), maker);
  }

  #toggle(model, wanted) {
    const models = this.state.models.filter((one) => one !== model);
    if (wanted) models.push(model);
    if (models.length && models.length <= MOST) this.state.models = models;
    changed();
    this.#show();
    this.chosen();
  }

  #show() {
    const { models } = this.state;
    for (const [model, box] of this.boxes) {
      const place = models.indexOf(model);
      box.checked = place >= 0;
      // The last one stays, and there is no fifth.
      box.disabled = place >= 0 ? models.length === 1 : models.length >= MOST;
      const row = box.parentElement;
      if (place >= 0) row.dataset.hue = place;
      else delete row.dataset.hue;
    }
    const label = models.length === 1 ? shortName(models[0]) : `${models.length} models`;
    at("picker-label").textContent = models.length ? label : "No models";
    at("picker-dots").replaceChildren(...models.map((_, place) => h("span", { class: "dot", "data-hue": place })));
  }

  #opened() {
    const filter = at("picker-filter");
    filter.value = "";
    this.#filter("");
    if (!filter.hidden) filter.focus();
    else [...this.boxes.values()].find((box) => !box.disabled)?.focus();
  }

  #filter(text) {
    for (const [model, box] of this.boxes) box.parentElement.hidden = !model.toLowerCase().includes(text);
  }
}
