// Runs before anything is drawn.

// Nothing here makes a script or HTML of a text, and what would gets none (see the page's policy).
window.trustedTypes?.createPolicy("default", {
  createHTML: (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;"),
  createScript: () => "",
});

// The theme that was chosen here before, if any.
(() => {
  try {
    const chosen = localStorage.getItem("konko.theme");
    if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
  } catch { /* no storage: the system's */ }
})();
