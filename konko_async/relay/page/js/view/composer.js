// The field for questions, and the keys of the page.

import { attached, isReading, problem, setAttached, setUpAttachments, tooLarge } from "../composing/attachments.js";
import { isAttached, wordsOf } from "../composing/files.js";
import { isEmpty } from "../conversations/content.js";

const at = (id) => document.getElementById(id);
const field = at("question");
const EDITABLE = "input, textarea, select, [contenteditable]";

/** Put a question into the field: a text, or parts. */
export function fill(content) {
  const text = wordsOf(content);
  setAttached(typeof content === "string" ? [] : content.filter(isAttached));
  field.value = text;
  field.dispatchEvent(new Event("input"));
  field.focus();
  field.setSelectionRange(text.length, text.length);
}

/** Take from the field what it holds. */
export function take() {
  const content = contentOf(field.value.trim());
  field.value = "";
  setAttached([]);
  field.dispatchEvent(new Event("input"));
  return content;
}

function contentOf(text) {
  const parts = attached();
  if (!parts.length) return text;
  return text ? [{ type: "text", text }, ...parts] : parts;
}

/** What the field holds, left as it is. */
export const peek = () => contentOf(field.value);

/** Show which question is being edited; null: none. */
export function setEditing(what) {
  at("editing").hidden = !what;
  at("editing-what").textContent = what ?? "";
}

/** Show whether answers are being written. */
export function setLive(live) {
  const focused = document.activeElement;
  at("send").hidden = live;
  at("stop").hidden = !live;
  // The button that was pressed is gone: the keyboard must not be left nowhere.
  if (focused === at("send") || focused === at("stop")) field.focus({ preventScroll: true });
  update();
}

function update() {
  at("send").disabled = isReading() || isEmpty(contentOf(field.value.trim()));
  if (CSS.supports("field-sizing", "content")) return;
  field.style.height = "auto";
  field.style.height = `${field.scrollHeight}px`;
}

/** `messages()` are those that are sent before the question; `send()`, `stop()`, `cancel()`, `escape()` and `editLast()` are what the keys and buttons do; `isLive()` tells which. */
export function setUpComposer({ send, stop, cancel, escape, editLast, isLive, messages }) {
  const submit = () => {
    if (isLive() || at("send").disabled) return;
    const wrong = tooLarge(contentOf(field.value.trim()));
    problem(wrong);
    if (!wrong) send();
  };
  at("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
  setUpAttachments(update, messages);
  field.addEventListener("input", update);
  field.addEventListener("keydown", (event) => {
    if (event.key === "ArrowUp" && isEmpty(peek()) && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      editLast();
    }
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    submit();
  });
  at("stop").addEventListener("click", stop);
  at("cancel-edit").addEventListener("click", cancel);
  document.addEventListener("keydown", (event) => {
    if (event.defaultPrevented || event.isComposing || event.metaKey || event.ctrlKey || event.altKey) return;
    const busy = document.querySelector("dialog[open], [popover]:popover-open");
    if (busy) return;
    if (event.key === "Escape") escape();
    else if (event.key === "/" && !event.target.closest(EDITABLE)) {
      event.preventDefault();
      field.focus();
    }
  });
  update();
}
