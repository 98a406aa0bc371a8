// The renderer of growing Markdown, for pages of your own: import it from /assets/markdown.js.

export { Markdown } from "./js/markdown/draw.js";
