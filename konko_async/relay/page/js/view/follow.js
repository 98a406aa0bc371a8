// Keeps the end in view while it grows, for as long as the reader is there.

import { afterFrames } from "./frames.js";

const NEAR = 60; // px

const page = document.scrollingElement;
const button = document.getElementById("to-end");
let following = true;
let last = 0;
let height = 0; // of the page, when the end was last brought into view

const distance = () => page.scrollHeight - page.scrollTop - page.clientHeight;

function moved() {
  // A page that grew or shrank is no reader who left: only a way up in one of the same height is,
  // or a long way.
  if (following && page.scrollHeight !== height && distance() < page.clientHeight / 2) {
    keep();
    return;
  }
  if (page.scrollTop < last - 1) following = distance() < 2;
  else if (distance() < NEAR) following = true;
  last = page.scrollTop;
  button.hidden = following || distance() < NEAR;
}

function keep() {
  height = page.scrollHeight;
  if (following) page.scrollTop = height;
  last = page.scrollTop;
  button.hidden = following || distance() < NEAR;
}

/** Go to the end, and stay there. */
export function toEnd() {
  following = true;
  keep();
}

/** Stay where something else is brought into view. */
export function leaveEnd() {
  following = false;
}

// A wheel, a finger or a key moves the page, however it grows meanwhile.

const UP = ["ArrowUp", "PageUp", "Home"];
const FINGER = 10; // px that a finger goes at least
let touch = null;

function left(event) {
  if (page.scrollTop > 0 && !event.target.closest?.("input, textarea, select, dialog, aside, [popover]")) following = false;
}

addEventListener("scroll", moved, { passive: true });
addEventListener("wheel", (event) => event.deltaY < 0 && left(event), { passive: true });
addEventListener("keydown", (event) => UP.includes(event.key) && left(event));
addEventListener("touchstart", ({ touches }) => { touch = touches[0]; }, { passive: true });
addEventListener("touchmove", (event) => {
  const [across, down] = [event.touches[0].clientX - touch.clientX, event.touches[0].clientY - touch.clientY];
  if (down > FINGER && down > Math.abs(across)) left(event);
}, { passive: true });
addEventListener("resize", keep);
button.addEventListener("click", () => {
  toEnd();
  document.getElementById("question").focus({ preventScroll: true });
});
afterFrames(keep);
new ResizeObserver(keep).observe(document.getElementById("turns")); // what comes into view gets its real size then
