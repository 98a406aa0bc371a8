// Text files as parts of a question: their name, and their text in a fence.

const FILE = /^File: ([^\n]{1,200})\n(`{3,})([\w+#-]*)\n([^]*)\n\2$/;
const LANGUAGES = { htm: "html", h: "c", mjs: "js", cjs: "js", yml: "yaml", txt: "", log: "", csv: "", text: "" };
const TEXT = /^(?:text\/|application\/(?:json|xml|javascript|x-javascript|typescript|x-sh|x-yaml|yaml|toml|sql|x-ndjson|x-python|graphql|ld\+json)$)/;
const NAMES = /\.(?:txt|text|md|markdown|rst|log|csv|tsv|json|jsonl|ndjson|ya?ml|toml|ini|cfg|conf|env|xml|html?|css|scss|less|[cm]?[jt]sx?|vue|svelte|py|pyi|ipynb|rb|php|java|kt|kts|scala|go|rs|c|h|cc|cpp|hpp|cs|swift|m|mm|pl|lua|r|jl|sh|bash|zsh|fish|ps1|bat|sql|tex|bib|diff|patch|dockerfile|makefile|mk|gradle|proto|graphql|hs|ex|exs|erl|clj|dart|zig)$/i;

/** Whether a file is one of text, by what the browser says or by its name. */
export const isTextFile = (file) => TEXT.test(file.type) || NAMES.test(file.name) || /^(?:dockerfile|makefile|license|readme)$/i.test(file.name);

/** A part of text as a file: {name, lang, text}; null where it is none. */
export function fileOf(text) {
  const found = text.startsWith("File: ") ? FILE.exec(text) : null;
  return found && { name: found[1], lang: found[3], text: found[4] };
}

/** Whether a part of a question is a picture or a file, and not its words. */
export const isAttached = (part) => part.type !== "text" || fileOf(part.text) !== null;

/** What was typed of a question: a text, or parts. */
export function wordsOf(content) {
  if (typeof content === "string") return content;
  return content.filter((part) => !isAttached(part)).map((part) => part.text).join("\n\n");
}

/** A fence that is longer than any in a text. */
export function fenceFor(text) {
  let longest = 2;
  for (const [run] of text.matchAll(/`+/g)) longest = Math.max(longest, run.length);
  return "`".repeat(longest + 1);
}

/** The part of a file. */
export function partOf(name, text) {
  const shown = name.replaceAll(/\s+/g, " ").slice(0, 200);
  const ending = /\.([\w+#-]{1,12})$/.exec(shown)?.[1].toLowerCase() ?? "";
  const lang = LANGUAGES[ending] ?? ending;
  const fence = fenceFor(text);
  return { type: "text", text: `File: ${shown}\n${fence}${lang}\n${text}\n${fence}` };
}

/** Read a file of text; throws an Error whose message says what is wrong. */
export async function readText(file) {
  const bytes = await file.arrayBuffer();
  let text;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new Error("it is no text in UTF-8");
  }
  if (text.includes("\0")) throw new Error("it is no text");
  return text.replaceAll(/\r\n?/g, "\n").replace(/\n+$/, "");
}
