// Versions of a question or an answer, to page through: ◀ 2/3 ▶.

import { say } from "./announce.js";
import { h, icon } from "./dom.js";

const BACK = "M12 5.5 7.5 10l4.5 4.5";
const ON = "M8 5.5 12.5 10 8 14.5";

/** A pager, or null where there is one version only; `choose(place)` shows another. */
export function versions(what, place, count, choose) {
  if (count < 2) return null;
  const step = (by, label, path) => h(
    "button",
    { type: "button", class: "quiet step", "data-by": by, "aria-label": `${label} version of the ${what}`, title: `${label} version`, disabled: place + by < 0 || place + by >= count, click: () => choose(place + by, by) },
    icon(path),
  );
  const words = h("span", { class: "versions-at" }, h("span", { "aria-hidden": "true" }, `${place + 1}/${count}`), h("span", { class: "visually-hidden" }, `Version ${place + 1} of ${count}`));
  return h("div", { class: "versions", role: "group", "aria-label": `Versions of the ${what}` }, step(-1, "Previous", BACK), words, step(1, "Next", ON));
}

/** After another version was drawn in place of one: the keyboard's focus stays where it was. */
export function focusPager(element, by, what) {
  const pager = element?.querySelector(".versions");
  if (!pager) return;
  const wanted = pager.querySelector(`[data-by="${by}"]`);
  (wanted.disabled ? pager.querySelector("button:not(:disabled)") : wanted).focus({ preventScroll: true });
  say(`${what}: ${pager.querySelector(".visually-hidden").textContent.toLowerCase()}`);
}
