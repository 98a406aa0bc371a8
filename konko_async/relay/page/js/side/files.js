// Files that are given to the reader, and taken from them.

import { h } from "../view/dom.js";

/** Let the browser save a text. */
export function save(text, name, type) {
  const address = URL.createObjectURL(new Blob([text], { type }));
  const link = h("a", { href: address, download: name, hidden: true });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(address), 60_000); // the browser may still ask where to
}

export const MARKDOWN = "text/markdown;charset=utf-8";
export const JSON_TYPE = "application/json";
