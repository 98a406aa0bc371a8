// Runs before anything is drawn: the theme that was chosen here before, if any.
(() => {
  try {
    const chosen = localStorage.getItem("konko.theme");
    if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
  } catch { /* no storage: the system's */ }
})();
