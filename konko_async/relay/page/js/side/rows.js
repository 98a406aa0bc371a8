// The rows of the list: one tab stop for all, arrows between them.

import { h, icon } from "../view/dom.js";

const MORE = "M4.5 10h.01M10 10h.01M15.5 10h.01";
const DAY = 86_400_000; // ms

/** Under which heading a time stands. */
function headingOf(time, now = new Date()) {
  const today = new Date(now.getFullYear(), now.getMonth(), now.getDate()).getTime();
  if (time >= today) return "Today";
  if (time >= today - DAY) return "Yesterday";
  if (time >= today - 7 * DAY) return "The last seven days";
  if (time >= today - 30 * DAY) return "The last thirty days";
  return "Older";
}

export class Rows {
  /** `actions`: open(row), more(row, button), rename(id, title), remove(row). A row is {about, turn, excerpt}. */
  constructor(place, actions) {
    this.place = place;
    this.actions = actions;
    this.rows = [];
    this.renaming = null;
    place.addEventListener("keydown", (event) => this.#key(event));
  }

  /** Show these, `current` marked, and those whose ids are in `live` as being written. */
  show(rows, { current, live, grouped, nothing }) {
    if (this.renaming) return; // drawn again when that is done
    const focused = document.activeElement?.closest?.(".chat-row")?.dataset.id;
    const wasMore = document.activeElement?.matches?.(".chat-more");
    this.rows = rows;
    const parts = [];
    let list = null;
    let heading = null;
    for (const row of rows) {
      const title = grouped ? headingOf(row.about.changed) : "Found";
      if (title !== heading) {
        heading = title;
        list = h("ul", { "aria-label": title });
        parts.push(h("h3", {}, title), list);
      }
      list.append(this.#row(row, row.about.id === current, live.has(row.about.id)));
    }
    if (!rows.length && nothing) parts.push(h("p", { class: "fine nothing" }, nothing));
    this.place.replaceChildren(...parts);
    const stop = this.#item(focused) ?? this.#item(current) ?? this.items[0];
    if (stop) this.#stopAt(stop);
    if (focused) (wasMore ? this.#item(focused)?.querySelector(".chat-more") : this.#item(focused)?.querySelector(".chat-open"))?.focus();
  }

  get items() {
    return [...this.place.querySelectorAll(".chat-row")];
  }

  #item(id) {
    return this.items.find((item) => item.dataset.id === id) ?? null;
  }

  #row(row, isCurrent, isLive) {
    const title = row.about.title || "Chat";
    const found = row.excerpt ? h("span", { class: "excerpt" }, row.excerpt) : null;
    const dot = isLive ? h("span", { class: "dot", title: "Being written" }, h("span", { class: "visually-hidden" }, "Being written: ")) : null;
    const open = h("button", { type: "button", class: "chat-open", tabindex: -1, title, "aria-current": isCurrent ? "page" : null, click: () => this.actions.open(row) }, dot, h("span", { class: "chat-title" }, title), found);
    const more = h("button", { type: "button", class: "chat-more", tabindex: -1, "aria-label": `Actions for ${title}`, "aria-haspopup": "dialog", click: () => this.actions.more(row, more) }, icon(MORE));
    return h("li", { class: "chat-row", "data-id": row.about.id }, open, more);
  }

  #stopAt(item) {
    for (const button of this.place.querySelectorAll("[tabindex='0']")) button.tabIndex = -1;
    for (const button of item.querySelectorAll("button")) button.tabIndex = 0;
  }

  focusFirst() {
    const item = this.items[0];
    if (!item) return;
    this.#stopAt(item);
    item.querySelector("button").focus();
  }

  #key(event) {
    const item = event.target.closest(".chat-row");
    if (!item || event.target.matches("input") || event.ctrlKey || event.metaKey || event.altKey) return;
    const { items } = this;
    const at = items.indexOf(item);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: items.length - 1 }[event.key];
    const row = this.rows.find((one) => one.about.id === item.dataset.id);
    if (to !== undefined) {
      const next = items[to];
      if (next) {
        this.#stopAt(next);
        next.querySelector(event.target.matches(".chat-more") ? ".chat-more" : ".chat-open").focus();
      }
    } else if (event.key === "ArrowRight") item.querySelector(".chat-more").focus();
    else if (event.key === "ArrowLeft") item.querySelector(".chat-open").focus();
    else if (event.key === "F2") this.rename(item.dataset.id);
    else if (event.key === "Delete") this.actions.remove(row);
    else return;
    event.preventDefault();
  }

  /** Let the reader write another title. */
  rename(id) {
    const item = this.#item(id);
    const open = item?.querySelector(".chat-open");
    if (!open) return;
    const before = open.title;
    const field = h("input", { class: "chat-name", "aria-label": "Title", maxlength: 200, autocomplete: "off" });
    field.value = before;
    const end = (wanted) => {
      if (this.renaming !== field) return;
      this.renaming = null;
      const title = field.value.trim();
      field.replaceWith(open);
      open.focus();
      if (wanted && title && title !== before) this.actions.rename(id, title);
      else this.actions.rename(id, null);
    };
    this.renaming = field;
    field.addEventListener("keydown", (event) => {
      if (event.isComposing || !["Enter", "Escape"].includes(event.key)) return;
      event.preventDefault();
      event.stopPropagation();
      end(event.key === "Enter");
    });
    field.addEventListener("blur", () => end(true));
    open.replaceWith(field);
    field.focus();
    field.select();
  }
}
