// The panel of settings, and the theme.

import { changed } from "../store.js";
import { maxTokens, takes, takesRole } from "../stream/relay.js";
import { setUpPresets } from "./presets.js";

const MOST_STOPS = 4; // OpenAI's own limit

const at = (id) => document.getElementById(id);
const dark = matchMedia("(prefers-color-scheme: dark)");

/** A number within the field's bounds, or null where there is none. */
function numberOf(field) {
  const value = field.valueAsNumber;
  return Number.isFinite(value) && field.validity.valid ? value : null;
}

const linesOf = (field) => field.value.split("\n").filter(Boolean);

/** Each setting: its field, and how it is read and shown. */
const FIELDS = {
  system: { field: at("system"), read: (field) => field.value.trim(), empty: "" },
  temperature: { field: at("temperature"), read: numberOf, empty: null },
  topP: { field: at("top-p"), read: numberOf, empty: null },
  maxTokens: { field: at("max-tokens"), read: numberOf, empty: null },
  seed: { field: at("seed"), read: numberOf, empty: null },
  stop: {
    field: at("stop-at"),
    read: (field) => (linesOf(field).length ? linesOf(field).slice(0, MOST_STOPS) : null),
    show: (value) => value?.join("\n") ?? "",
    empty: null,
  },
};

/** What a field holds that is not sent, in words; "" if there is nothing. */
function problem() {
  for (const { field } of Object.values(FIELDS)) {
    if (field.validity.valid) continue;
    const { min, max } = field;
    const name = field.labels[0].textContent;
    return max ? `${name}: a number from ${min} to ${max}. It is left out until then.` : `${name}: a whole number from ${min} on. It is left out until then.`;
  }
  const count = linesOf(at("stop-at")).length;
  return count > MOST_STOPS ? `Stop at: ${count} texts, of which the first ${MOST_STOPS} are sent.` : "";
}

export function setUpSettings(settings) {
  const dialog = at("settings");
  const show = () => {
    for (const [name, { field, show: shown }] of Object.entries(FIELDS)) field.value = shown ? shown(settings[name]) : settings[name] ?? "";
  };
  const read = () => {
    for (const [name, { field, read: value }] of Object.entries(FIELDS)) settings[name] = value(field);
    const isSet = Object.entries(FIELDS).some(([name, { empty }]) => settings[name] !== empty);
    at("open-settings").classList.toggle("set", isSet);
    at("open-settings").setAttribute("aria-label", isSet ? "Settings, changed" : "Settings");
    at("settings-problem").textContent = problem();
    at("settings-problem").hidden = !at("settings-problem").textContent;
    changed();
  };
  dialog.addEventListener("input", read);
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  at("open-settings").addEventListener("click", () => dialog.showModal());
  at("settings-reset").addEventListener("click", () => {
    for (const { field } of Object.values(FIELDS)) field.value = "";
    read();
    presets.show();
  });
  show();
  const presets = setUpPresets(at("system"), read);
  read();
}

/** Leave out what this relay takes none of. */
export function limitSettings() {
  for (const part of document.querySelectorAll("[data-param]")) part.hidden = !takes(part.dataset.param);
  document.querySelector("[data-role=system]").hidden = !takesRole("system");
  const most = maxTokens();
  if (most === null) return;
  at("max-tokens").max = most;
  at("max-tokens").placeholder = String(most);
  at("max-tokens-help").textContent = `The longest answer; here at most ${most}.`;
}

export function setUpTheme() {
  const root = document.documentElement;
  const button = at("theme");
  const isDark = () => (root.dataset.theme ? root.dataset.theme === "dark" : dark.matches);
  const show = () => button.setAttribute("aria-pressed", String(isDark()));
  button.addEventListener("click", () => {
    const theme = isDark() ? "light" : "dark";
    root.dataset.theme = theme;
    try {
      // The system's own choice needs no memory, and goes with the system.
      if ((theme === "dark") === dark.matches) {
        delete root.dataset.theme;
        localStorage.removeItem("konko.theme");
      } else localStorage.setItem("konko.theme", theme);
    } catch { /* it holds until the page is closed */ }
    show();
  });
  dark.addEventListener("change", show);
  show();
}
