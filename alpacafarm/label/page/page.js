"use strict";
// The page for pairwise labels. Texts come as JSON and are only ever put into text nodes.
// A choice goes into an outbox in the browser's storage, the next pair is shown at once, and the outbox is
// sent until the server has it: a closed tab, a reload or a server that is down lose nothing, and a label that
// is sent twice has the same id both times.

const $ = (id) => document.getElementById(id);
const SHOWN = 2; // pairs at hand: the one on the page and the next
const RENEW_MS = 60_000; // the server keeps a pair for ten minutes for a tab that does not ask again
const AGAIN_MS = 1_500; // before a server that did not answer is asked again
const POLL_MS = 5_000; // while there is nothing to label

const address = new URL(location.href);
const state = { name: "", tab: "", folder: null, queue: [], labelled: new Set(), revising: null, shown: null, since: 0 };

// Storage, which some browsers refuse

function stored(store, key) {
  try { return store.getItem(key); } catch { return null; }
}

function store(where, key, value) {
  try { value === null ? where.removeItem(key) : where.setItem(key, value); } catch { memory(key, value); }
}

const kept = new Map();
function memory(key, value) { value === null ? kept.delete(key) : kept.set(key, value); }

function drawn() { // crypto.randomUUID is missing where the page is not on localhost or https
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (b) => b.toString(16).padStart(2, "0")).join("");
}

// The outbox: one entry for each label, those of closed tabs included

function outbox() {
  const prefix = `label ${state.folder} `;
  const names = new Set(kept.keys());
  try { for (let i = 0; i < localStorage.length; i++) names.add(localStorage.key(i)); } catch { /* memory only */ }
  return [...names].filter((name) => name.startsWith(prefix)).sort();
}

function put(label) {
  const time = String(Date.now()).padStart(15, "0");
  store(localStorage, `label ${state.folder} ${time} ${label.id}`, JSON.stringify(label));
}

let sending = null;
function send() { // one at a time, in order; true when the outbox is empty
  sending ??= sendAll().finally(() => { sending = null; });
  return sending;
}

async function sendAll() {
  for (let names = outbox(); names.length; names = outbox()) {
    const label = JSON.parse(stored(localStorage, names[0]) ?? kept.get(names[0]) ?? "null");
    if (label) {
      const reply = await post("/api/label", label);
      if (!reply.ok && ![404, 409, 422].includes(reply.status)) return false;
      if (!reply.ok) say(`One label was not taken: ${reply.body.error}`);
      else standing(reply.body);
    }
    store(localStorage, names[0], null);
    kept.delete(names[0]);
  }
  return true;
}

// The server

async function post(path, body) {
  return ask(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), keepalive: true });
}

async function ask(path, how) {
  try {
    const answer = await fetch(path, { ...how, cache: "no-store" });
    const body = await answer.json().catch(() => ({ error: answer.statusText }));
    if (answer.status === 401) trouble("The page's token is no longer right. Open the address that the command printed; nothing is lost.");
    else if (answer.status >= 500) trouble(`The server has a problem: ${body.error}`);
    else trouble("");
    return { ok: answer.ok, status: answer.status, body };
  } catch {
    trouble("The server does not answer. Is `python -m alpacafarm.label` still running? What you chose is kept in this browser and sent when it answers.");
    return { ok: false, status: 0, body: {} };
  }
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

let filling = null;
function fill() { // sends what waits, then gets pairs until there are enough; one at a time
  filling ??= fillUp().finally(() => { filling = null; });
  return filling;
}

async function fillUp() {
  for (;;) {
    if (!(await send())) { await pause(AGAIN_MS); continue; }
    const who = { labeller: state.name, tab: state.tab };
    const reply = await post("/api/pairs", { ...who, keep: state.queue.map((p) => p.pair), count: SHOWN });
    if (reply.status === 422) return rename(reply.body.error);
    if (!reply.ok) { await pause(AGAIN_MS); continue; }
    if (outbox().length) continue; // chosen meanwhile
    const known = new Set(state.queue.map((p) => p.pair));
    const fresh = reply.body.pairs.filter((p) => !known.has(p.pair) && !state.labelled.has(p.pair));
    state.queue.push(...fresh);
    standing(reply.body);
    if (!state.revising) next();
    return;
  }
}

// What is shown

function next() {
  state.revising = null;
  if (state.queue.length) show(state.queue[0], null);
  else nothing();
}

function show(pair, label) {
  if (state.shown === pair && !label) return;
  state.shown = pair;
  state.since = performance.now();
  for (const [place, value] of [["instruction", pair.instruction], ["input", pair.input]]) $(place).textContent = value;
  $("with-input").hidden = !pair.input;
  for (const side of ["left", "right"]) {
    const text = $(side).querySelector(".text");
    text.textContent = pair[side] || "(an empty answer)";
    text.classList.toggle("nothing", !pair[side]);
    text.scrollTop = 0;
    $(side).classList.toggle("chosen", label?.choice === side);
  }
  $("prompt").scrollTop = 0;
  for (const button of document.querySelectorAll("[data-choice]")) button.classList.toggle("chosen", label?.choice === button.dataset.choice);
  $("comment").value = label?.comment ?? "";
  $("said").hidden = !label?.comment;
  $("revising").hidden = !label;
  $("pair").dataset.pair = pair.pair;
  $("pair").hidden = $("choices").hidden = false;
  $("done").hidden = true;
}

function nothing() {
  state.shown = null;
  delete $("pair").dataset.pair;
  $("pair").hidden = $("choices").hidden = $("revising").hidden = true;
  $("done").hidden = false;
  const missing = state.standing?.missing ?? 0;
  $("done-title").textContent = missing ? "Nothing left for you" : "All pairs are labelled";
  $("done-text").textContent = missing
    ? `${missing} ${missing === 1 ? "pair waits" : "pairs wait"} for other people's labels. This page looks again by itself.`
    : "Thank you. Give the run's command again: it goes on from these labels. Then this page may be closed.";
}

function standing(body) {
  state.standing = body.standing;
  const { judged, goal, missing, mine, skipped } = body.standing;
  $("bar").max = goal || 1;
  $("bar").value = goal - missing; // a skipped pair is done too
  $("count").textContent = `${judged} of ${goal} pairs · ${mine} by you${skipped ? ` · ${skipped} skipped` : ""}`;
  if (!$("details").hidden) details();
}

async function details() {
  const rows = (body, cells) => body.replaceChildren(...cells.map((row) => {
    const line = document.createElement("tr");
    line.append(...row.map((text) => Object.assign(document.createElement("td"), { textContent: text })));
    return line;
  }));
  rows($("people"), Object.entries(state.standing?.people ?? {}).map(([name, count]) => [name, `${count} labels`]));
  const reply = await ask("/api/agreement", {});
  if (!reply.ok) return;
  const { pairs, equal, alpha, kappas } = reply.body;
  const number = (x) => (x === null ? "–" : x.toFixed(2));
  rows($("agreement"), [
    ["pairs judged by several", String(pairs)],
    ["equal verdicts", equal === null ? "–" : `${(100 * equal).toFixed(0)} %`],
    ["Krippendorff's alpha", number(alpha)],
    ...kappas.map((k) => [`Cohen's kappa, ${k.first} and ${k.second} (${k.pairs} pairs)`, number(k.kappa)]),
  ]);
}

function trouble(text) {
  $("trouble").textContent = text;
  $("trouble").hidden = !text;
}

function say(text) { $("status").textContent = text; }

// What people do

function choose(choice) {
  const pair = state.shown;
  if (!pair) return;
  const seconds = Math.min((performance.now() - state.since) / 1000, 86_400);
  const comment = $("comment").value;
  put({ id: drawn(), labeller: state.name, tab: state.tab, pair: pair.pair, choice, comment, seconds, replaces: state.revising?.id ?? null });
  state.labelled.add(pair.pair);
  state.queue = state.queue.filter((p) => p.pair !== pair.pair);
  $("comment").blur();
  say({ left: "A is better", right: "B is better", tie: "Tie", skip: "Skipped" }[choice]);
  state.revising = null;
  if (state.queue.length) next();
  else { state.shown = null; $("pair").hidden = $("choices").hidden = true; } // until `fill` knows
  fill();
}

async function back() {
  if (!(await send())) return;
  const reply = await post("/api/back", { labeller: state.name, tab: state.tab, before: state.revising?.seq ?? null });
  if (!reply.ok) return;
  const label = reply.body.label;
  if (!label) return say("There is no earlier label of yours");
  state.revising = label;
  show(label.shown, label);
  say("An earlier label of yours");
}

function speak() {
  $("said").hidden = false;
  $("comment").focus();
}

const KEYS = {
  1: () => choose("left"), ArrowLeft: () => choose("left"),
  2: () => choose("right"), ArrowRight: () => choose("right"),
  3: () => choose("tie"), t: () => choose("tie"), s: () => choose("skip"),
  u: back, c: speak, Escape: () => state.revising && next(), "?": toggle,
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || !state.name) return;
  if (event.target.matches("textarea, input")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const act = KEYS[event.key] ?? KEYS[event.key.toLowerCase()];
  if (!act || event.repeat) return; // a key that is held down is one choice
  event.preventDefault();
  act();
});

for (const button of document.querySelectorAll("[data-choice]")) {
  button.addEventListener("click", () => { choose(button.dataset.choice); button.blur(); });
}
$("back").addEventListener("click", back);
$("speak").addEventListener("click", speak);
$("keep").addEventListener("click", next);
$("more").addEventListener("click", toggle);
$("who").addEventListener("click", () => { address.searchParams.delete("name"); location.href = address.href; });

function toggle() {
  $("details").hidden = !$("details").hidden;
  $("more").setAttribute("aria-expanded", String(!$("details").hidden));
  if (!$("details").hidden) details();
}

// Beginning and end

function leave() {
  const body = new Blob([JSON.stringify({ labeller: state.name, tab: state.tab })], { type: "application/json" });
  navigator.sendBeacon("/api/leave", body);
}

async function begin(name) {
  state.name = name;
  store(localStorage, "labeller", name);
  address.searchParams.set("name", name);
  history.replaceState(null, "", address);
  $("who").textContent = name;
  for (const part of document.querySelectorAll(".begun")) part.hidden = false;
  $("name").hidden = true;
  state.tab = drawn();
  for (;;) {
    const reply = await ask(`/api/standing?labeller=${encodeURIComponent(name)}`, {});
    if (reply.ok) { state.folder = reply.body.folder; standing(reply.body); break; }
    await pause(AGAIN_MS);
  }
  addEventListener("pagehide", leave);
  addEventListener("pageshow", (event) => event.persisted && fill());
  setInterval(fill, RENEW_MS);
  setInterval(() => !state.shown && fill(), POLL_MS);
  await fill();
}

function rename(why) {
  trouble(`This name cannot be used: ${why}`);
  state.name = "";
  $("name").hidden = false;
}

$("name").addEventListener("submit", (event) => {
  event.preventDefault();
  const name = $("labeller").value.trim().split(/\s+/).join(" ");
  if (name) begin(name);
});

address.searchParams.delete("token"); // it is in a cookie by now
history.replaceState(null, "", address);
const known = address.searchParams.get("name")?.trim();
if (known) begin(known);
else {
  $("labeller").value = stored(localStorage, "labeller") ?? "";
  $("name").hidden = false;
  $("labeller").focus();
  $("labeller").select();
}
