// Conversations as files: JSON, which can be imported again, and Markdown, to be read.

import { shownVersion } from "./conversation.js";

export const FORMAT = "konko-chats";
export const FORMAT_VERSION = 1;

/** All that is known of conversations, {about, turns} each: every version of every turn. */
export function toJson(found, now = new Date()) {
  const conversations = found.map(({ about, turns }) => ({ ...about, turns }));
  return `${JSON.stringify({ format: FORMAT, version: FORMAT_VERSION, exported: now.toISOString(), conversations }, null, 1)}\n`;
}

function part(one) {
  if (one.type === "text") return one.text;
  const address = one.image_url?.url ?? "";
  return address.startsWith("https:") ? `![image](${address})` : `*[${one.type === "image_url" ? "image" : one.type}]*`;
}

const written = (content) => (typeof content === "string" ? content : content.map(part).join("\n\n"));

function answer(version) {
  const how = { stopped: "*[stopped]*", failed: "*[cut off]*" }[version.state] ?? "";
  return [`## ${version.model || "Model"}`, version.text.trim(), how].filter(Boolean).join("\n\n");
}

/** The path of a conversation that is seen, as Markdown. */
export function toMarkdown(conversation) {
  const { title, created } = conversation.about;
  const turns = conversation.path().flatMap((turn) => [`## You\n\n${written(turn.content).trim()}`, ...turn.answers.map(shownVersion).map(answer)]);
  return `${[`# ${title || "Chat"}`, `*${new Date(created).toISOString().slice(0, 10)}*`, ...turns].join("\n\n")}\n`;
}

/** A name for a file: of letters and digits of any language. */
export function fileName(title, ending) {
  const words = title.toLowerCase().match(/[\p{L}\p{N}]+/gu) ?? [];
  return `${words.join("-").slice(0, 60) || "chat"}.${ending}`;
}
