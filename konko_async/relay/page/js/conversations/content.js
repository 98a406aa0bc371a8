// What a message holds: a text, or a list of parts as the API has them.

/** The words of a content: its text, or that of its parts of text. */
export function textOf(content) {
  if (typeof content === "string") return content;
  return content.filter((part) => part.type === "text").map((part) => part.text).join("\n\n");
}

/** Whether there is something to send. */
export const isEmpty = (content) => (typeof content === "string" ? !content.trim() : !content.length);
