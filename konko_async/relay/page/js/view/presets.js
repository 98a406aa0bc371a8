// System prompts that are saved under a name: in this browser, until they are deleted.

import { say } from "./announce.js";
import { h } from "./dom.js";

const KEY = "konko.presets";
const MOST = 50;

const at = (id) => document.getElementById(id);

function load() {
  try {
    const found = JSON.parse(localStorage.getItem(KEY) ?? "[]");
    return found.filter((one) => typeof one?.name === "string" && typeof one.text === "string").slice(0, MOST);
  } catch {
    return []; // no storage, or not ours
  }
}

/** Keep them; returns what is wrong, or "". */
function keep(presets) {
  try {
    localStorage.setItem(KEY, JSON.stringify(presets));
    return "";
  } catch {
    return "This browser lets the page keep nothing, or its storage is full.";
  }
}

/** `field` holds the prompt; `changed()` is called when a preset was put there. Returns {show()}. */
export function setUpPresets(field, changed) {
  const [list, form, name] = [at("preset"), at("preset-form"), at("preset-name")];
  let presets = load();

  const show = () => {
    const chosen = presets.find((one) => one.text === field.value.trim());
    const first = h("option", { value: "" }, presets.length ? "Saved prompts…" : "No saved prompts");
    list.replaceChildren(first, ...presets.map((one) => h("option", { value: one.name }, one.name)));
    list.value = chosen?.name ?? "";
    list.disabled = !presets.length;
    at("preset-delete").hidden = !chosen;
    at("preset-save").disabled = !field.value.trim() || Boolean(chosen);
  };
  const store = (next, told) => {
    const problem = keep(next);
    if (!problem) presets = next;
    say(problem || told);
    at("presets-help").textContent = problem || "Saved prompts stay in this browser until you delete them.";
    show();
  };
  const add = () => {
    const label = name.value.trim();
    if (!label) {
      name.focus();
      return;
    }
    const others = presets.filter((one) => one.name !== label);
    if (others.length >= MOST) say(`There are ${MOST} saved prompts; delete one first.`);
    else store([...others, { name: label, text: field.value.trim() }].sort((one, other) => one.name.localeCompare(other.name)), `Saved as ${label}.`);
    form.hidden = true;
    list.focus();
  };

  list.addEventListener("change", (event) => {
    event.stopPropagation();
    const found = presets.find((one) => one.name === list.value);
    if (found) field.value = found.text;
    changed();
    show();
  });
  field.addEventListener("input", show);
  at("preset-save").addEventListener("click", () => {
    form.hidden = !form.hidden;
    name.value = "";
    if (!form.hidden) name.focus();
  });
  at("preset-add").addEventListener("click", add);
  name.addEventListener("keydown", (event) => {
    if (event.key === "Escape") {
      form.hidden = true;
      at("preset-save").focus();
    } else if (event.key === "Enter" && !event.isComposing) add();
    else return;
    event.preventDefault(); // it would close the dialog
  });
  at("preset-delete").addEventListener("click", () => {
    const label = list.value;
    store(presets.filter((one) => one.name !== label), `Deleted ${label}.`);
    list.focus();
  });
  show();
  return { show };
}
