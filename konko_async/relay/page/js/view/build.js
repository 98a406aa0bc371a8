// Draws many turns without holding up the page: those that are seen at once, the rest piece by piece.

import { nextFrame } from "./frames.js";

const SLICE = 12; // ms

/** Draws elements into `place`, in the order in which they are wanted. */
export class Builder {
  #place;
  #left = [];
  #timer = 0;

  constructor(place) {
    this.#place = place;
  }

  /** Call the works one after another: `now` of them at once, the others a few at a time. */
  start(works, now) {
    this.cancel();
    this.#left = works.reverse();
    for (let count = 0; count < now && this.#left.length; count += 1) this.#left.pop()();
    if (!this.#left.length) return;
    this.#place.setAttribute("aria-busy", "true");
    nextFrame(this.#plan); // what is drawn is to be seen first
  }

  /** Do at once what is left. */
  finish() {
    while (this.#left.length) this.#left.pop()();
    this.cancel();
  }

  cancel() {
    this.#left = [];
    clearTimeout(this.#timer);
    this.#place.removeAttribute("aria-busy");
  }

  #plan = () => {
    clearTimeout(this.#timer);
    if (!this.#left.length) {
      this.cancel();
      return;
    }
    this.#timer = setTimeout(() => {
      const until = performance.now() + SLICE;
      while (this.#left.length && performance.now() < until) this.#left.pop()();
      this.#plan();
    });
  };
}
