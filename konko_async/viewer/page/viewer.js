// A page over the output of a batch. Text is only ever put in as text: there is no HTML of anybody's.

const ROW = 28; // pixels
const TALLEST = 16_000_000; // pixels of an element; browsers draw nothing below some 17 to 33 million
const PAGE = 100; // rows in one question
const PAGES = 40; // that are kept
const WORDS = 1500; // of a text, up to which differences are looked for
const $ = (id) => document.getElementById(id);
const number = new Intl.NumberFormat("en");

function make(tag, props = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (name === "class") made.className = value;
    else if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

async function ask(path, params = {}) {
  const response = await fetch(`api/${path}?${new URLSearchParams(params)}`);
  if (!response.ok) throw new Error(await response.text());
  return response.json();
}

const state = {
  files: [], prices: {}, filter: "all", text: "", total: 0, complete: false,
  pages: new Map(), asked: new Set(), chosen: -1, view: "rows", generation: 0, epoch: 0, pending: false,
};

// -- the list ------------------------------------------------------------------------------------

const list = $("list"), space = $("space");
const shown = new Map(); // elements of rows, by their place in the selection

function height() {
  return Math.min(state.total * ROW, TALLEST);
}

// Where all rows would be taller than an element can be, the scroll bar is a scale.
function first() {
  const most = height() - list.clientHeight;
  if (state.total * ROW <= TALLEST || most <= 0) return list.scrollTop / ROW;
  return (list.scrollTop / most) * Math.max(0, state.total - list.clientHeight / ROW);
}

function draw() {
  space.style.height = `${height()}px`;
  const top = first(), begin = Math.max(0, Math.floor(top) - 4);
  const end = Math.min(state.total, Math.ceil(top + list.clientHeight / ROW) + 4);
  for (const [place, element] of shown) {
    if (place < begin || place >= end) {
      element.remove();
      shown.delete(place);
    }
  }
  for (let place = begin; place < end; place++) {
    let element = shown.get(place);
    const row = rowAt(place);
    if (!element || element.row !== row) {
      const made = rowElement(place, row);
      if (element) element.replaceWith(made);
      else space.append(made);
      shown.set(place, made);
      element = made;
    }
    element.style.top = `${list.scrollTop + (place - top) * ROW}px`;
    element.setAttribute("aria-selected", String(place === state.chosen));
  }
  const active = shown.get(state.chosen);
  if (active) list.setAttribute("aria-activedescendant", active.id);
  else list.removeAttribute("aria-activedescendant");
}

function rowElement(place, row) {
  const made = make("div", { class: "row", role: "option", id: `row-${place}` });
  made.setAttribute("aria-posinset", place + 1);
  made.setAttribute("aria-setsize", state.total);
  made.row = row;
  made.addEventListener("click", () => choose(place));
  if (!row) {
    made.append(make("span", { class: "said" }, "…"));
    return made;
  }
  if (!row.ok) made.classList.add("failed");
  const notes = [];
  if (row.other === false) notes.push("≠");
  if (row.other === null) notes.push("only here");
  if (row.cut) notes.push("cut");
  if (row.cached) notes.push("cache");
  if (row.tokens !== null) notes.push(`${number.format(row.tokens)} t`);
  made.append(
    make("span", { class: "mark" }, row.ok ? "✓" : "✗"),
    make("span", { class: "name" }, row.id ?? `line ${row.place + 1}`),
    make("span", { class: "said" }, row.text),
    make("span", { class: "note" }, notes.join(" · ")),
  );
  return made;
}

function rowAt(place) {
  const page = Math.floor(place / PAGE), rows = state.pages.get(page);
  if (!rows || (rows.length < PAGE && place % PAGE >= rows.length)) load(page);
  return rows?.[place % PAGE];
}

async function load(page) {
  if (state.asked.has(page)) return;
  state.asked.add(page);
  const epoch = state.epoch;
  try {
    const found = await ask("rows", {
      filter: state.filter, q: state.text, first: page * PAGE, count: PAGE,
    });
    if (epoch !== state.epoch) return;
    state.pages.delete(page);
    state.pages.set(page, found.rows);
    while (state.pages.size > PAGES) state.pages.delete(state.pages.keys().next().value);
    setTotal(found);
  } catch (error) {
    say(error.message);
  } finally {
    if (epoch === state.epoch) state.asked.delete(page);
  }
  draw();
  if (state.pending && state.pages.has(Math.floor(state.chosen / PAGE))) tell(state.chosen);
}

function setTotal(found) {
  state.total = found.total;
  state.complete = found.complete;
  const all = state.filter === "all" && !state.text;
  const so = found.complete ? "" : " so far";
  say(all ? "" : `${number.format(found.total)} rows${so}`);
}

function say(text) {
  $("found").textContent = text;
}

// -- one row -------------------------------------------------------------------------------------

async function choose(place, look = false) {
  if (place < 0 || place >= state.total) return;
  state.chosen = place;
  if (look) reveal(place);
  draw();
  await tell(place);
}

// Shows the chosen row; where its page has not come yet, load() calls again.
async function tell(place) {
  const row = rowAt(place);
  state.pending = !row;
  if (!row) return;
  try {
    const { rows } = await ask("row", { place: row.place });
    if (state.chosen === place) detail(rows);
  } catch (error) {
    say(error.message);
  }
}

function reveal(place) {
  const rows = list.clientHeight / ROW, top = first();
  let wanted = top;
  if (place < top) wanted = place;
  else if (place > top + rows - 1) wanted = place - rows + 1;
  if (wanted === top) return;
  list.scrollTop = state.total * ROW <= TALLEST
    ? wanted * ROW
    : (wanted / (state.total - rows)) * (height() - list.clientHeight);
}

function detail(rows) {
  const [one, two] = rows, both = rows.length > 1;
  const sides = make("div", { class: both ? "sides two" : "sides" });
  const parts = both && two?.ok && one.ok ? differences(two.text, one.text) : null;
  rows.forEach((row, side) => sides.append(sideOf(row, side, parts)));
  const prompt = (one.prompt ?? []).flatMap(({ role, content }) => [
    make("h3", {}, role), make("p", { class: "text" }, content),
  ]);
  $("detail").replaceChildren(
    make("h2", {}, one.custom_id ?? `line ${one.place + 1}`), ...prompt, sides,
    ...rows.filter((row) => row.raw).map((row) => make("details", {},
      make("summary", {}, both ? `Raw line of ${state.files[rows.indexOf(row)].name}` : "Raw line"),
      make("pre", { class: "raw" }, row.raw))),
  );
  $("detail").scrollTop = 0;
}

function sideOf(row, side, parts) {
  const box = make("div", { class: "side" });
  if (state.files.length > 1) box.append(make("h2", {}, state.files[side].name));
  if (row.place === undefined) {
    box.append(make("p", { class: "hint" }, "There is no row of this id."));
    return box;
  }
  if (row.error !== null) {
    box.append(make("h3", {}, "error"), make("p", { class: "text error" }, `${row.code}: ${row.error}`));
  }
  if (row.text || row.ok) {
    const text = make("p", { class: "text" });
    // Words that only the first output has count as added, those of the second as removed.
    if (parts) text.append(...parts.filter(([kind]) => kind !== (side ? "ins" : "del")).map(
      ([kind, words]) => (kind ? make(kind, {}, words) : words)));
    else text.textContent = row.text || "(empty)";
    box.append(make("h3", {}, "answer"), text);
  }
  box.append(factsOf(row));
  return box;
}

function factsOf(row) {
  const facts = make("dl");
  const add = (name, value) => {
    if (value !== null && value !== undefined) facts.append(make("dt", {}, name), make("dd", {}, String(value)));
  };
  add("model", row.model);
  add("finish reason", row.finish_reason);
  add("tokens in", row.prompt_tokens === null ? null : number.format(row.prompt_tokens));
  add("tokens out", row.completion_tokens === null ? null : number.format(row.completion_tokens));
  add("cost", row.cached ? "0 (from the cache)" : money(row.prompt_tokens, row.completion_tokens));
  add("latency", row.latency === null ? null : `${row.latency.toFixed(2)} s`);
  add("row of the input", row.row === null ? null : number.format(row.row + 1));
  return facts;
}

function money(ins, outs) {
  const { in: priceIn, out: priceOut } = state.prices;
  if (priceIn === null || priceIn === undefined || ins === null) return null;
  const cost = (ins * priceIn + (outs ?? 0) * (priceOut ?? 0)) / 1e6;
  return `$${cost < 0.01 ? cost.toPrecision(2) : cost.toFixed(2)}`;
}

// Words that were taken away, added, or stayed: the longest common subsequence.
function differences(before, after) {
  const a = before.match(/\s+|[^\s]+/g) ?? [], b = after.match(/\s+|[^\s]+/g) ?? [];
  if (before === after || a.length > WORDS || b.length > WORDS) return null;
  const width = b.length + 1, best = new Uint16Array((a.length + 1) * width);
  for (let i = a.length - 1; i >= 0; i--) {
    for (let j = b.length - 1; j >= 0; j--) {
      best[i * width + j] = a[i] === b[j]
        ? best[(i + 1) * width + j + 1] + 1
        : Math.max(best[(i + 1) * width + j], best[i * width + j + 1]);
    }
  }
  const parts = [];
  const add = (kind, word) => {
    if (parts.length && parts.at(-1)[0] === kind) parts.at(-1)[1] += word;
    else parts.push([kind, word]);
  };
  let i = 0, j = 0;
  while (i < a.length || j < b.length) {
    if (i < a.length && j < b.length && a[i] === b[j]) { add("", a[i]); i++; j++; }
    else if (j >= b.length || (i < a.length && best[(i + 1) * width + j] >= best[i * width + j + 1])) add("del", a[i++]);
    else add("ins", b[j++]);
  }
  return parts;
}

// -- charts --------------------------------------------------------------------------------------

async function charts() {
  const { files } = await ask("stats");
  $("charts-view").replaceChildren(...files.map(fileCharts));
  return files.every((file) => file.complete);
}

function fileCharts(file) {
  const figures = make("dl", { class: "figures" });
  const add = (name, value) => {
    if (value !== null) figures.append(make("div", {}, make("dt", {}, name), make("dd", {}, value)));
  };
  add("answered", number.format(file.ok));
  add("failed", number.format(file.failed));
  if (file.cached) add("from the cache", number.format(file.cached));
  add("tokens in", number.format(file.prompt_tokens));
  add("tokens out", number.format(file.completion_tokens));
  add("cost", money(file.billed_prompt_tokens, file.billed_completion_tokens));
  const note = file.complete ? "" : ` (of ${number.format(file.scanned)} rows so far)`;
  return make("div", {}, make("h2", {}, file.name + note), figures, make("div", { class: "charts" },
    bars("Latency of calls", file.latency), bars("Tokens of an answer", file.tokens),
    bars("Finish reasons", file.reasons), bars("Errors", file.errors, true)));
}

function bars(title, values, bad = false) {
  const card = make("div", { class: "card" }, make("h2", {}, title));
  if (!values.length) return make("div", { class: "card" }, make("h2", {}, title), make("p", { class: "hint" }, "none"));
  const most = Math.max(...values.map(([, value]) => value), 1);
  const grid = make("div", { class: bad ? "bars bad" : "bars" });
  for (const [name, value] of values) {
    const bar = make("div", { class: "bar" });
    bar.style.width = `${(100 * value) / most}%`;
    grid.append(make("span", { class: "label" }, name), bar, make("span", { class: "value" }, number.format(value)));
  }
  card.append(grid);
  return card;
}

// -- what the user does --------------------------------------------------------------------------

function select() {
  state.filter = $("filter").value;
  state.text = $("text").value;
  state.epoch++;
  state.pages.clear();
  state.asked.clear();
  state.chosen = -1;
  state.pending = false;
  state.total = 0;
  state.complete = false;
  for (const element of shown.values()) element.remove();
  shown.clear();
  list.scrollTop = 0;
  $("export").href = `api/export?${new URLSearchParams({ filter: state.filter, q: state.text })}`;
  load(0);
}

let waiting = 0;
$("text").addEventListener("input", () => {
  clearTimeout(waiting);
  waiting = setTimeout(select, 200);
});
$("search").addEventListener("submit", (event) => {
  event.preventDefault();
  select();
});
$("filter").addEventListener("change", select);
list.addEventListener("scroll", draw, { passive: true });
new ResizeObserver(draw).observe(list);
list.addEventListener("keydown", (event) => {
  const rows = Math.max(1, Math.floor(list.clientHeight / ROW) - 1);
  const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: rows, PageUp: -rows };
  let wanted = null;
  if (event.key in steps) wanted = state.chosen + steps[event.key];
  else if (event.key === "Home") wanted = 0;
  else if (event.key === "End") wanted = state.total - 1;
  if (wanted === null) return;
  event.preventDefault();
  choose(Math.min(Math.max(wanted, 0), state.total - 1), true);
});

function show(view) {
  state.view = view;
  for (const name of ["rows", "charts"]) {
    $(`${name}-view`).hidden = name !== view;
    $(`show-${name}`).setAttribute("aria-pressed", String(name === view));
  }
  if (view === "charts") charts().catch((error) => say(error.message));
  else draw();
}
$("show-rows").addEventListener("click", () => show("rows"));
$("show-charts").addEventListener("click", () => show("charts"));

// -- the file grows ------------------------------------------------------------------------------

async function look() {
  const found = await ask("state");
  const generation = found.files.map((file) => file.generation).join();
  const grown = found.files.some((file, place) => file.rows !== state.files[place]?.rows);
  const [one] = found.files;
  state.files = found.files;
  state.prices = found.prices;
  document.title = one.name;
  $("title").textContent = found.files.map((file) => file.name).join(" and ");
  $("counts").textContent = found.files.map((file) =>
    `${number.format(file.rows)} rows, ${number.format(file.failed)} failed${file.complete ? "" : " (reading …)"}`).join(" · ");
  if (found.files.length > 1 && $("filter").options.length === 5) {
    $("filter").append(make("option", { value: "different" }, "different answers"));
  }
  if (generation !== state.generation) {
    state.generation = generation;
    select();
  } else if (grown || !state.complete) {
    // Only how many there are: pages that are shown are loaded again where they were not full.
    if (state.filter === "all" && !state.text) setTotal({ total: one.rows, complete: one.complete });
    else await load(Math.floor(Math.max(0, state.total - 1) / PAGE));
    draw();
  }
  const charted = state.view !== "charts" || (await charts());
  return found.files.every((file) => file.complete) && state.complete && charted;
}

async function follow() {
  let quick = true;
  try {
    quick = !(await look());
  } catch (error) {
    say(`the viewer does not answer: ${error.message}`);
    quick = false;
  }
  setTimeout(follow, quick ? 30 : 1000);
}

follow();
