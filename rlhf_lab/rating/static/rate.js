// Shows one pair at a time and sends one vote for it. Texts only ever become textContent, never HTML.
// Leaves out which pair comes next and what counts: the server decides both.
"use strict";

const SETTLE = 300; // ms in which keys do nothing on a new pair: the second half of a double press is not a vote
const KEYS = { "0": "tie", b: "both_bad", s: "skip", f: "flag" };
const SIDES = { Digit1: "left", Numpad1: "left", Digit2: "right", Numpad2: "right" };
const NAMES = { left: "answer 1", right: "answer 2", tie: "tie", both_bad: "both bad", skip: "skipped", flag: "flagged" };
const WAIT = 15000; // ms before an answer that does not come counts as a lost connection

const element = (id) => document.getElementById(id);
let state = null; // what the server said last
let shownAt = 0; // performance.now() when the pair was shown, less the time in which the page was hidden
let hiddenAt = null;
let ready = false;

function setReady(value) {
  ready = value;
  element("work").dataset.ready = String(value);
}

async function ask(path, body) {
  const post = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  const options = { ...(body ? post : {}), signal: AbortSignal.timeout(WAIT) };
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Error("The server does not answer, so nothing was saved. Is rlhf-lab rate still running? Then press again.");
  }
  const found = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(found.error || `The server answered ${answer.status}; nothing was saved. Press again.`);
  return found;
}

function fill(id, blocks) {
  element(id).replaceChildren(
    ...blocks.flatMap(({ role, text }) => {
      const words = document.createElement("p");
      words.textContent = text;
      if (!role) return [words];
      const who = document.createElement("h3");
      who.textContent = role;
      return [who, words];
    }),
  );
}

function remaining({ done, left, seconds_left }) {
  if (!left) return `${done} done`;
  const minutes = seconds_left === null ? null : Math.ceil(seconds_left / 60);
  const time = minutes === null ? "" : minutes <= 1 ? ", about a minute left" : `, about ${minutes} minutes left`;
  return `${done} of ${done + left}${time}`;
}

function show(found) {
  state = found;
  const { pair, progress, last } = found;
  element("problem").hidden = true;
  element("progress-text").textContent = remaining(progress);
  element("progress").value = progress.done / Math.max(1, progress.done + progress.left);
  element("undo").disabled = !last;
  element("work").hidden = element("votes").hidden = !pair;
  element("done").hidden = Boolean(pair);
  if (!pair) {
    element("done-text").textContent = `${progress.done} pairs rated. Thank you. You can close this page, or take back the last vote with U.`;
    element("done").focus();
  } else {
    fill("prompt", pair.prompt);
    fill("left", pair.left);
    fill("right", pair.right);
    element("work").dataset.presentation = pair.presentation;
    window.scrollTo(0, 0);
    element("prompt").focus({ preventScroll: true });
  }
  shownAt = performance.now();
  hiddenAt = document.hidden ? shownAt : null;
  setTimeout(() => setReady(true), SETTLE);
}

async function act(path, body, said) {
  if (!ready) return;
  setReady(false);
  try {
    show(await ask(path, body));
    element("said").textContent = said;
  } catch (error) {
    element("problem").textContent = error.message;
    element("problem").hidden = false;
    setReady(true); // the same pair with the same turn: pressing again can not count twice
  }
}

function vote(outcome, strength) {
  if (!state || !state.pair) return;
  const { presentation, turn } = state.pair;
  const seconds = Math.max(0, performance.now() - shownAt) / 1000;
  const grade = strength ? ` ${strength} better` : "";
  act("/api/vote", { presentation, turn, outcome, strength, seconds }, `Saved: ${NAMES[outcome]}${grade}`);
}

function undo() {
  if (!state || !state.last) return;
  const { presentation, turn, outcome } = state.last;
  act("/api/undo", { presentation, turn }, `Taken back: ${NAMES[outcome]}`);
}

function guidelines() {
  const dialog = element("guidelines");
  if (dialog.open) dialog.close();
  else dialog.showModal();
}

function onKey(event) {
  if (event.repeat || event.ctrlKey || event.altKey || event.metaKey || event.isComposing) return;
  if (event.target instanceof Element && event.target.closest("input, textarea, select, [contenteditable]")) return;
  if (event.key === "?") return guidelines();
  if (element("guidelines").open) return;
  const side = SIDES[event.code]; // by place, for on some keyboards a digit itself needs Shift
  const key = event.key.toLowerCase();
  if (side) vote(side, event.shiftKey ? "clearly" : "slightly");
  else if (key === "u") undo();
  else if (KEYS[key]) vote(KEYS[key], null);
  else return;
  event.preventDefault();
}

document.addEventListener("keydown", onKey);
document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    hiddenAt = performance.now();
  } else if (hiddenAt !== null) {
    shownAt += performance.now() - hiddenAt;
    hiddenAt = null;
  }
});
for (const button of document.querySelectorAll("[data-outcome]")) {
  button.addEventListener("click", () => vote(button.dataset.outcome, button.dataset.strength || null));
}
element("undo").addEventListener("click", undo);
element("help").addEventListener("click", guidelines);
element("close").addEventListener("click", guidelines);

ask("/api/next").then(show, (error) => {
  element("progress-text").textContent = "Not loaded";
  element("problem").textContent = error.message;
  element("problem").hidden = false;
});
