// Where links lead: which addresses may be followed, and how a link's target is read.

const DEEPEST_PARENTHESES = 32; // in an address, as in the reference implementation
const ESCAPED = /[!-/:-@[-`{-~]/;
// A quoted text, or one in parentheses; and one that has begun.
const QUOTED = String.raw`"((?:\\.|[^"\\])*)"|'((?:\\.|[^'\\])*)'|\(((?:\\.|[^()\\])*)\)`;
const BEGUN = String.raw`"(?:\\.|[^"\\])*\\?|'(?:\\.|[^'\\])*\\?|\((?:\\.|[^()\\])*\\?`;
const TITLE = new RegExp(String.raw`(?:\s+(?:${QUOTED}))?\s*\)`, "sy");
const TITLE_BEGUN = new RegExp(String.raw`(?:\s*|\s+(?:${BEGUN})|\s+(?:${QUOTED})\s*)$`, "sy");

export const isWordCharacter = (character) => /[\p{L}\p{N}]/u.test(character);

/** The address as it may be followed, or null: only the web and mail, nothing that runs. */
export function safeAddress(address) {
  // What a browser would drop or trim must not hide another scheme from us.
  const text = address.replace(/[\u0000-\u001F\u007F-\u009F]+/g, "").trim();
  if (!/^(?:https?:\/\/|mailto:)/i.test(text)) return null;
  try {
    const url = new URL(text);
    return ["http:", "https:", "mailto:"].includes(url.protocol) ? url.href : null;
  } catch {
    return null;
  }
}

const isSpace = (code) => code === 32 || code === 10;

/** Read `(address "title")`; null if it is none, "cut" if the text ends first. */
export function readTarget(text, start, reach, longest) {
  let at = start + 1;
  while (at - start <= reach && isSpace(text.charCodeAt(at))) at += 1;
  const address = text[at] === "<" ? angled(text, at, longest) : plain(text, at, longest);
  if (address === null || address === "cut") return address;
  const rest = text.slice(address.end, address.end + reach);
  TITLE.lastIndex = TITLE_BEGUN.lastIndex = 0;
  const title = TITLE.exec(rest);
  if (title) return { address: address.text, title: title[1] ?? title[2] ?? title[3] ?? "", end: address.end + title[0].length };
  const cut = text.length - address.end < reach && TITLE_BEGUN.test(rest);
  return cut ? "cut" : null;
}

/** An address in angle brackets. */
function angled(text, at, longest) {
  for (let end = at + 1; end <= at + longest; end += 1) {
    if (end >= text.length) return "cut";
    const character = text[end];
    if (character === ">") return { text: text.slice(at + 1, end), end: end + 1 };
    if (character === "<" || character === "\n") return null;
    if (character === "\\") end += 1;
  }
  return null;
}

/** An address without: its parentheses are balanced. */
function plain(text, start, longest) {
  let depth = 0;
  let at = start;
  for (; at < text.length; at += 1) {
    const code = text.charCodeAt(at);
    if (code <= 32 || code === 127 || (code > 127 && /\s/.test(text[at]))) break;
    if (code === 92 && ESCAPED.test(text[at + 1] ?? "")) at += 1; // a backslash
    else if (code === 40 && (depth += 1) > DEEPEST_PARENTHESES) return null;
    else if (code === 41 && (depth -= 1) < 0) break;
    if (at - start > longest) return null;
  }
  if (at >= text.length) return "cut";
  return depth > 0 ? null : { text: text.slice(start, at), end: at };
}
