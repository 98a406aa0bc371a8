// Work that waits for the next frame; where nobody looks there are none, so a timer does.

const HIDDEN_PAUSE = 250; // ms

const waiting = new Set();
const after = new Set();
let planned = false;

function run() {
  planned = false;
  const works = [...waiting];
  waiting.clear();
  for (const work of works) work();
  for (const work of after) work();
}

/** Call `work` once before the next frame, however often this is asked for. */
export function nextFrame(work) {
  waiting.add(work);
  if (planned) return;
  planned = true;
  if (document.hidden) setTimeout(run, HIDDEN_PAUSE);
  else requestAnimationFrame(run);
}

/** Call `work` after each frame's work. */
export function afterFrames(work) {
  after.add(work);
}

// A frame that was planned before the page was hidden would not come.
document.addEventListener("visibilitychange", () => {
  if (planned) setTimeout(run, 0);
});
