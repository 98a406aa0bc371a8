// The panel of settings, and the theme.

import { changed } from "./store.js";

const at = (id) => document.getElementById(id);
const dark = matchMedia("(prefers-color-scheme: dark)");

/** A number within the field's bounds, or null where there is none. */
function numberOf(field) {
  const value = field.valueAsNumber;
  return Number.isFinite(value) && field.validity.valid ? value : null;
}

export function setUpSettings(settings) {
  const dialog = at("settings");
  const [system, temperature, maxTokens] = [at("system"), at("temperature"), at("max-tokens")];
  system.value = settings.system;
  temperature.value = settings.temperature ?? "";
  maxTokens.value = settings.maxTokens ?? "";
  const read = () => {
    settings.system = system.value.trim();
    settings.temperature = numberOf(temperature);
    settings.maxTokens = numberOf(maxTokens);
    at("open-settings").classList.toggle("set", Boolean(settings.system || settings.temperature !== null || settings.maxTokens !== null));
    changed();
  };
  dialog.addEventListener("input", read);
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  at("open-settings").addEventListener("click", () => dialog.showModal());
  read();
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
