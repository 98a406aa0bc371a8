// A question as it is seen: Markdown, with pictures and files, and folded where it is long.

import { fenceFor, fileOf } from "../composing/files.js";
import { fenced } from "../composing/fences.js";
import { Markdown } from "../markdown/draw.js";
import { h } from "./dom.js";

const LONG_LINES = 14;
const LONG_TEXT = 900; // characters
const LONGEST_TITLE = 80;

/** The element of what was asked: a text, or a list of parts. */
export function question(content) {
  const parts = typeof content === "string" ? [{ type: "text", text: content }] : content;
  const files = parts.map((part) => (part.type === "text" ? fileOf(part.text) : null));
  const words = parts.filter((part, place) => part.type === "text" && !files[place]).map((part) => part.text).join("\n\n");
  const box = h("div", { class: "question-body" });
  if (words.trim()) box.append(...wordsOf(words));
  else box.append(h("h2", { class: "visually-hidden" }, "A question without words"));
  const attached = parts.map((part, place) => (files[place] ? file(files[place]) : part.type === "image_url" ? picture(part.image_url?.url) : null)).filter(Boolean);
  if (attached.length) box.append(h("div", { class: "attached" }, ...attached));
  return box;
}

function wordsOf(text) {
  const prose = h("div", { class: "question-text prose" });
  const markdown = new Markdown(prose);
  markdown.write(fenced(text));
  markdown.end();
  // One paragraph is a heading by itself; what has more in it, is below one.
  if (prose.childElementCount === 1 && prose.firstElementChild.localName === "p") {
    const { firstElementChild: only } = prose;
    const heading = h("h2", { class: "question-text plain" });
    heading.append(...only.childNodes);
    return folded(heading, text);
  }
  const [line] = text.trim().split("\n");
  const title = line.length > LONGEST_TITLE ? `${line.slice(0, LONGEST_TITLE)}…` : line;
  return [h("h2", { class: "visually-hidden" }, title), ...folded(prose, text)];
}

function folded(element, text) {
  if (text.length <= LONG_TEXT && text.split("\n", LONG_LINES + 1).length <= LONG_LINES) return [element];
  element.classList.add("folded");
  const button = h("button", { type: "button", class: "quiet unfold", "aria-expanded": "false", click: () => fold(!element.classList.contains("folded")) }, "Show all");
  const fold = (closed) => {
    element.classList.toggle("folded", closed);
    button.setAttribute("aria-expanded", String(!closed));
    button.textContent = closed ? "Show all" : "Show less";
  };
  // Whatever the keyboard gets to must be seen.
  element.addEventListener("focusin", () => fold(false));
  return [element, button];
}

function picture(address) {
  // Nothing is loaded from elsewhere: the page's policy does not let it.
  if (!address?.startsWith("data:image/")) return h("span", { class: "file-chip" }, "A picture from elsewhere");
  return h("img", { class: "picture-sent", src: address, alt: "A picture that was sent with the question" });
}

function file({ name, text, lang }) {
  const body = h("div", { class: "prose" });
  const details = h("details", { class: "file-sent" }, h("summary", {}, name), body);
  details.addEventListener("toggle", () => {
    if (!details.open || body.firstChild) return;
    const fence = fenceFor(text);
    const markdown = new Markdown(body);
    markdown.write(`${fence}${lang}\n${text}\n${fence}\n`);
    markdown.end();
  });
  return details;
}
