// The field for questions, and the keys of the page.

const at = (id) => document.getElementById(id);
const field = at("question");
const EDITABLE = "input, textarea, select, [contenteditable]";

/** Put a question into the field. */
export function fill(text) {
  field.value = text;
  field.dispatchEvent(new Event("input"));
  field.focus();
  field.setSelectionRange(text.length, text.length);
}

/** Take from the field what it holds. */
export function take() {
  const text = field.value.trim();
  field.value = "";
  field.dispatchEvent(new Event("input"));
  return text;
}

/** Show that a question is being edited. */
export function setEditing(editing) {
  at("editing").hidden = !editing;
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
  at("send").disabled = !field.value.trim();
  if (CSS.supports("field-sizing", "content")) return;
  field.style.height = "auto";
  field.style.height = `${field.scrollHeight}px`;
}

/** `send()`, `stop()` and `cancel()` are what the keys and buttons do; `isLive()` tells which. */
export function setUpComposer({ send, stop, cancel, isLive }) {
  const submit = () => {
    if (!isLive() && field.value.trim()) send();
  };
  at("ask").addEventListener("submit", (event) => {
    event.preventDefault();
    submit();
  });
  field.addEventListener("input", update);
  field.addEventListener("keydown", (event) => {
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
    if (event.key === "Escape") (isLive() ? stop : cancel)();
    else if (event.key === "/" && !event.target.closest(EDITABLE)) {
      event.preventDefault();
      field.focus();
    }
  });
  update();
}
