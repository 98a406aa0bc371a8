// Pictures and files that are put to a question: picked, pasted or dropped.

import { maxBody, takesPart } from "../stream/relay.js";
import { say } from "../view/announce.js";
import { h, icon } from "../view/dom.js";
import { fileOf, isTextFile, partOf, readText } from "./files.js";
import { isPicture, readPicture } from "./pictures.js";

const MOST = 8; // of one question
const MOST_OF_ONE = 400_000; // bytes of a picture's address: several are to fit, and are sent with each question
const ROOM = 4096; // bytes of a call beside its messages
const REMOVE = "m5.5 5.5 9 9M14.5 5.5l-9 9";

const at = (id) => document.getElementById(id);
const bytesOf = (value) => new Blob([JSON.stringify(value)]).size;

let parts = []; // [{part, name, note, picture}]
let reading = 0;
let changed = () => {};
let before = () => []; // the messages that are sent with a question

/** A number of bytes in words. */
function sizeOf(bytes) {
  if (bytes < 1000) return `${bytes} bytes`;
  return bytes < 1_000_000 ? `${Math.round(bytes / 1000)} kB` : `${(bytes / 1_000_000).toFixed(1)} MB`;
}

/** The parts that are attached. */
export const attached = () => parts.map(({ part }) => part);

/** Whether a file is still being read. */
export const isReading = () => reading > 0;

/** Attach these and nothing else. */
export function setAttached(found) {
  parts = found.map((part) => {
    const file = part.type === "text" ? fileOf(part.text) : null;
    const picture = part.type === "image_url" ? part.image_url.url : null;
    return { part, name: file?.name ?? "Picture", note: sizeOf(bytesOf(part)), picture };
  });
  problem("");
  draw();
}

/** What is wrong with sending a content now, in words; "" if nothing is. */
export function tooLarge(content) {
  const size = bytesOf([...before(), { role: "user", content }]) + ROOM;
  const most = maxBody();
  if (size <= most) return "";
  return `This is too large to send: ${sizeOf(size)} with the conversation so far, and this relay takes ${sizeOf(most)}. Take something out, or begin a new chat.`;
}

export function problem(text) {
  at("attach-problem").textContent = text;
  at("attach-problem").hidden = !text;
}

function draw() {
  at("attached").replaceChildren(...parts.map((one, place) => h(
    "li",
    { class: "attachment" },
    one.picture ? h("img", { src: one.picture, alt: "" }) : null,
    h("span", { class: "attachment-name" }, one.name),
    h("span", { class: "fine" }, one.note),
    h("button", { type: "button", class: "quiet", "aria-label": `Take out ${one.name}`, title: "Take out", click: () => remove(place) }, icon(REMOVE)),
  )));
  at("attached").hidden = !parts.length;
  changed();
}

function remove(place) {
  const [gone] = parts.splice(place, 1);
  problem("");
  draw();
  say(`${gone.name} was taken out.`);
  (at("attached").querySelectorAll("button")[Math.min(place, parts.length - 1)] ?? at("question")).focus();
}

/** Bytes that are left for one more attachment. */
const left = () => maxBody() - ROOM - bytesOf([...before(), ...attached()]) - bytesOf(at("question").value);

async function read(file) {
  const room = left();
  if (isPicture(file)) {
    if (!takesPart("image_url")) throw new Error("this relay takes no pictures");
    if (room < ROOM) throw new Error("there is no room left for it");
    const found = await readPicture(file, Math.min(MOST_OF_ONE, room));
    const shape = `${found.width} × ${found.height}${found.smaller ? ", made smaller" : ""}`;
    return { part: found.part, name: file.name || "Picture", note: `${shape}, ${sizeOf(found.size)}`, picture: found.part.image_url.url };
  }
  if (!isTextFile(file)) throw new Error("only pictures and text files can be attached");
  if (file.size > room) throw new Error(`it has ${sizeOf(file.size)}, and ${sizeOf(Math.max(room, 0))} are left`);
  const part = partOf(file.name, await readText(file));
  if (bytesOf(part) > room) throw new Error(`it has ${sizeOf(bytesOf(part))} as it is sent, and ${sizeOf(Math.max(room, 0))} are left`);
  return { part, name: file.name, note: sizeOf(file.size), picture: null };
}

/** Attach files, one after another; what cannot be is said, with the reason. */
async function attach(files) {
  const wrong = [];
  reading += 1;
  changed();
  try {
    for (const file of files) {
      try {
        if (parts.length >= MOST) throw new Error(`at most ${MOST} are sent with one question`);
        parts.push(await read(file));
        draw();
      } catch (error) {
        wrong.push(`${file.name || "The file"} was not attached: ${error.message}.`);
      }
    }
  } finally {
    reading -= 1;
    changed();
  }
  problem(wrong.join(" "));
  if (!wrong.length) say(`Attached: ${parts.map((one) => one.name).join(", ")}.`);
}

const filesOf = (transfer) => [...transfer?.files ?? []];

function setUpDrops() {
  let inside = 0; // elements that are dragged over
  const mark = (on) => document.body.classList.toggle("is-dropping", on);
  const hasFiles = (event) => event.dataTransfer?.types.includes("Files") && !document.querySelector("dialog[open]");
  addEventListener("dragenter", (event) => {
    if (!hasFiles(event)) return;
    inside += 1;
    mark(true);
  });
  addEventListener("dragleave", (event) => {
    if (hasFiles(event) && (inside -= 1) <= 0) mark(false);
  });
  addEventListener("dragover", (event) => hasFiles(event) && event.preventDefault());
  addEventListener("drop", (event) => {
    inside = 0;
    mark(false);
    if (!hasFiles(event) || event.defaultPrevented) return;
    event.preventDefault(); // else the browser would leave the page for the file
    attach(filesOf(event.dataTransfer));
  });
}

/** `whenChanged()` is called when there are others; `messages()` are those that are sent before the question. */
export function setUpAttachments(whenChanged, messages) {
  changed = whenChanged;
  before = messages;
  const [button, input] = [at("attach"), at("attach-file")];
  button.addEventListener("click", () => input.click());
  input.addEventListener("change", () => {
    attach([...input.files]);
    input.value = "";
    at("question").focus({ preventScroll: true });
  });
  at("question").addEventListener("paste", (event) => {
    const files = filesOf(event.clipboardData);
    // Office programs put a picture of the text beside it.
    if (!files.length || event.clipboardData.getData("text/plain")) return;
    event.preventDefault();
    attach(files);
  });
  setUpDrops();
}

/** Say what this relay takes. */
export function sayLimits() {
  const what = takesPart("image_url") ? "pictures and text files" : "text files";
  at("attach").title = `Attach ${what}: up to ${MOST}, and ${sizeOf(maxBody())} in all with the conversation`;
  at("attach-limits").textContent = `Up to ${MOST} ${what}; a call may have ${sizeOf(maxBody())}, with the conversation.`;
}
