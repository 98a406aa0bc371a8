// What is sent for an answer.

import { textOf } from "../conversations/content.js";
import { takes } from "./relay.js";

/** Settings, and what the API calls them. */
const PARAMETERS = [["temperature", "temperature"], ["topP", "top_p"], ["maxTokens", "max_tokens"], ["seed", "seed"], ["stop", "stop"]];

/** Not every server takes parts: where all are text, one text is sent. */
function plain(message) {
  const { content } = message;
  if (typeof content === "string" || content.some((part) => part.type !== "text")) return message;
  return { ...message, content: textOf(content) };
}

/** The body of a call: messages, and the settings that are set. */
export function bodyOf(model, messages, settings) {
  const { system } = settings;
  const sent = messages.map(plain);
  const all = system ? [{ role: "system", content: system }, ...sent] : sent;
  const body = { model, messages: all, stream: true, stream_options: { include_usage: true } };
  for (const [name, param] of PARAMETERS) {
    if (settings[name] !== null && settings[name] !== undefined && takes(param)) body[param] = settings[name];
  }
  return body;
}

/** There is no standard for the beginning of an answer; every model understands words. */
const PROCEED = "Continue your last message exactly where it ended. Do not repeat any of it, and do not comment on this.";

/** The messages that have a model continue what it wrote. */
export const toProceed = (messages, text) => [...messages, { role: "assistant", content: text }, { role: "user", content: PROCEED }];
