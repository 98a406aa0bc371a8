// What a screen reader announces: ends, not tokens.

const region = document.getElementById("live");
const SHORT = 400; // characters of an answer that are read out

export function say(text) {
  region.textContent = text;
}

/** An answer has ended. */
export function sayAnswer(name, text, how) {
  const count = text.trim().split(/\s+/).filter(Boolean).length;
  const words = count === 1 ? "one word" : `${count} words`;
  const short = text.length <= SHORT ? ` ${text.trim()}` : ` ${words}.`;
  say(how === "stopped" ? `${name} was stopped after ${words}.` : `${name} has answered.${short}`);
}
