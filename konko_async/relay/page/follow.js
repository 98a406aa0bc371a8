// Keeps the end in view while it grows, for as long as the reader is there.

import { afterFrames } from "./frames.js";

const NEAR = 60; // px

const page = document.scrollingElement;
const button = document.getElementById("to-end");
let following = true;
let last = 0;

const distance = () => page.scrollHeight - page.scrollTop - page.clientHeight;

function moved() {
  // A page that grew is no reader who left: only a way up is, unless the page became shorter.
  if (page.scrollTop < last - 1) following = distance() < 2;
  else if (distance() < NEAR) following = true;
  last = page.scrollTop;
  button.hidden = following || distance() < NEAR;
}

function keep() {
  if (following) page.scrollTop = page.scrollHeight;
  last = page.scrollTop;
  button.hidden = following || distance() < NEAR;
}

/** Go to the end, and stay there. */
export function toEnd() {
  following = true;
  keep();
}

addEventListener("scroll", moved, { passive: true });
addEventListener("resize", keep);
button.addEventListener("click", () => {
  toEnd();
  document.getElementById("question").focus({ preventScroll: true });
});
afterFrames(keep);
