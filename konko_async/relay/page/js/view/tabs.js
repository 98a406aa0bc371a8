// On a narrow screen one of several answers is seen at a time: buttons, or a swipe, choose it.

import { shortName } from "./answer.js";
import { h } from "./dom.js";

const FAR = 60; // px that a swipe goes at least
const SLOPE = 2; // how much more across than down

const bar = document.getElementById("tabs");
const main = document.getElementById("main");
let active = 0;
let count = 0;

function show() {
  main.dataset.active = active;
  [...bar.children].forEach((button, place) => button.setAttribute("aria-pressed", String(place === active)));
  bar.children[active]?.scrollIntoView({ block: "nearest", inline: "nearest" });
}

/** Offer these models' answers. */
export function setTabs(models) {
  count = models.length;
  active = Math.min(active, Math.max(count - 1, 0));
  bar.hidden = count < 2;
  const choose = (place) => () => {
    active = place;
    show();
  };
  bar.replaceChildren(...models.map((model, place) => h(
    "button",
    { type: "button", "data-hue": place, click: choose(place) },
    h("span", { class: "dot", "aria-hidden": "true" }),
    shortName(model),
  )));
  show();
}

/** Whether something under the finger scrolls sideways itself. */
function scrolls(element) {
  for (let one = element; one && one !== main; one = one.parentElement) {
    if (one.scrollWidth > one.clientWidth + 1 && ["PRE", "DIV"].includes(one.tagName) && getComputedStyle(one).overflowX !== "visible") return true;
  }
  return false;
}

export function setUpSwipes() {
  let start = null;
  main.addEventListener("touchstart", (event) => {
    const one = event.touches.length === 1 && count > 1 && !bar.hidden && bar.offsetParent;
    start = one && !scrolls(event.target) ? event.touches[0] : null;
  }, { passive: true });
  main.addEventListener("touchend", (event) => {
    if (!start) return;
    const [across, down] = [event.changedTouches[0].clientX - start.clientX, event.changedTouches[0].clientY - start.clientY];
    start = null;
    if (Math.abs(across) < FAR || Math.abs(across) < Math.abs(down) * SLOPE) return;
    active = Math.min(Math.max(active + (across < 0 ? 1 : -1), 0), count - 1);
    show();
  }, { passive: true });
}
