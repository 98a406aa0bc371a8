// Asks before something is deleted.

const at = (id) => document.getElementById(id);

/** Resolves to true if the reader agrees. `other`: {label, act} of a further button, which leaves the question open. */
export function askFirst({ title, text, yes, other = null }) {
  const dialog = at("ask-first");
  at("ask-title").textContent = title;
  at("ask-text").textContent = text;
  at("ask-yes").textContent = yes;
  at("ask-other").hidden = !other;
  at("ask-other").textContent = other?.label ?? "";
  at("ask-other").onclick = other?.act ?? null;
  dialog.returnValue = "no";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => resolve(dialog.returnValue === "yes"), { once: true });
  });
}
