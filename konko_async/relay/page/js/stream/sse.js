// Server-sent events, from the bytes of a response: the WHATWG rules, for a fetch that sends headers.

/** Bytes to events {id, type, data}; comments count as a sign of life only. */
export class EventDecoder {
  #text = new TextDecoder();
  #rest = "";
  #afterReturn = false;
  #id = "";
  #type = "";
  #data = [];

  /** Take bytes; returns the events that they complete. */
  decode(bytes) {
    let text = this.#text.decode(bytes, { stream: true });
    if (!text) return [];
    if (this.#afterReturn && text.startsWith("\n")) text = text.slice(1);
    this.#afterReturn = text.endsWith("\r");
    const lines = (this.#rest + text).split(/\r\n|\r|\n/);
    this.#rest = lines.pop();
    const events = [];
    for (const line of lines) this.#line(line, events);
    return events;
  }

  #line(line, events) {
    if (line === "") {
      if (this.#data.length) events.push({ id: this.#id, type: this.#type || "message", data: this.#data.join("\n") });
      this.#type = "";
      this.#data = [];
      return;
    }
    const colon = line.indexOf(":");
    if (colon === 0) return;
    const field = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (field === "data") this.#data.push(value);
    else if (field === "event") this.#type = value;
    else if (field === "id" && !value.includes("\0")) this.#id = value;
  }
}
