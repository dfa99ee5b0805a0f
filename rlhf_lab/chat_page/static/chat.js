// Asks, shows the answers side by side, files comparisons. Texts only ever become textContent, never HTML.
// Leaves out what may be known and what counts: names and numbers come from the server once they may be seen.
import { MEASURES, legend, make, number, rangeOf, signed, tokenRow, tokenTable } from "/static/tokens.js";

const SETTLE = 300; // ms in which a new vote's buttons do nothing: the second half of a double click is not a vote
const WAIT = 300000; // ms before an answer that does not come counts as a lost connection
const VOTES = [
  ["left", "clearly"],
  ["left", "slightly"],
  ["tie", null],
  ["right", "slightly"],
  ["right", "clearly"],
];

const element = (id) => document.getElementById(id);
const hasTurns = element("talk").dataset.hasTurns === "true";
const questions = new Map(); // id -> { question as the server said it last, article, pair that is looked at, shownAt }
const painters = new Map(); // question id -> functions that colour its tokens
let look = { measure: "log_ratio", table: false };
let after = null; // the answer that the next question follows: { id, said }
let busy = false;

// --- the server -------------------------------------------------------------------------------------------------

async function call(path, body) {
  const post = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  let answer;
  try {
    answer = await fetch(path, { ...(body ? post : {}), signal: AbortSignal.timeout(WAIT) });
  } catch {
    throw new Error("The server does not answer. Is rlhf-lab chat --web still running? Then try again.");
  }
  const found = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(found.error || `The server answered ${answer.status}. Try again.`);
  return found;
}

function tell(error) {
  element("problem").textContent = error ? error.message : "";
  element("problem").hidden = !error;
}

function setBusy(value) {
  busy = value;
  element("talk").dataset.busy = String(value);
  element("waiting").textContent = value ? "The models are writing …" : "";
  for (const button of document.querySelectorAll("#send, [data-again], [data-example]")) button.disabled = value;
}

async function ask(text, options) {
  if (busy) return false;
  if (!text.trim()) {
    tell(new Error("Type a question first."));
    return false;
  }
  setBusy(true);
  try {
    const question = await call("/api/ask", { question: text, ...settings(), ...options });
    tell(null);
    show(question);
    follow(hasTurns ? lastWritten(question) : null);
    questions.get(question.id).article.scrollIntoView({ block: "start" });
    return true;
  } catch (error) {
    tell(error);
    return false;
  } finally {
    setBusy(false);
  }
}

function settings() {
  const seed = element("seed").value;
  return {
    blind: element("blind").checked,
    temperature: Number(element("temperature").value),
    seed: seed === "" ? null : Number(seed),
  };
}

async function change(question, path, body) {
  const held = questions.get(question.id);
  if (held.sending) return;
  held.sending = true;
  try {
    const found = await call(path, { id: question.id, ...body });
    tell(null);
    for (const one of found.questions ?? [found.question]) show(one);
  } catch (error) {
    tell(error);
  } finally {
    held.sending = false;
  }
}

// --- one question -----------------------------------------------------------------------------------------------

function show(question) {
  const held = questions.get(question.id) ?? { shownAt: performance.now(), pair: 0 };
  const hadFocus = held.article?.contains(document.activeElement) ? document.activeElement.dataset.focus : null;
  const article = make("article", { class: "question", id: `q-${question.id}`, "data-named": String(question.named) });
  const before = held.article;
  questions.set(question.id, Object.assign(held, { question, article, settled: performance.now() + SETTLE }));
  painters.set(question.id, []);
  article.append(...head(question), columns(question), foot(question));
  if (question.named) article.querySelector(".answers").before(key(question));
  if (before) before.replaceWith(article);
  else element("questions").append(article);
  if (hadFocus) article.querySelector(`[data-focus="${hadFocus}"]`)?.focus({ preventScroll: true });
  element("opening").hidden = true;
  paint();
}

function head(question) {
  const followed = question.after ? `After ${nameOf(question.after)} above. ` : "";
  const facts = `${followed}Temperature ${question.temperature}, seed ${question.seed}`;
  const parts = [make("h2", { class: "asked" }, question.question), make("p", { class: "soft facts" }, facts)];
  return question.note ? [...parts, make("p", { class: "notice note" }, question.note)] : parts;
}

function columns(question) {
  const cards = question.answers.map((answer) => {
    const name = title(question, answer);
    const card = make("section", { class: "answer", "data-letter": answer.letter, "data-stage": answer.stage });
    card.append(make("h3", {}, name), ...(question.named ? named(question, answer, name) : [plain(answer)]));
    if (hasTurns) {
      const here = make("button", { type: "button", class: "quiet", "data-continue": answer.id }, "Continue from here");
      here.addEventListener("click", () => follow({ id: answer.id, said: name }));
      card.append(here);
    }
    return card;
  });
  return make("div", { class: `answers of-${cards.length}` }, ...cards);
}

function title(question, answer) {
  if (!question.named) return `Answer ${answer.letter}`;
  return question.blind ? `${answer.name} · ${answer.letter}` : answer.name;
}

function nameOf(answerId) {
  for (const { question } of questions.values()) {
    const answer = question.answers.find((one) => one.id === answerId);
    if (answer) return title(question, answer);
  }
  return "an answer";
}

function plain(answer) {
  const isEmpty = answer.text === "";
  return make("div", { class: "text" }, make("p", { class: isEmpty ? "soft" : null }, isEmpty ? "(nothing)" : answer.text));
}

function named(question, answer, name) {
  const { row, readout, paint: painter } = tokenRow(answer, name);
  painters.get(question.id).push(painter);
  const sum = answer.stage === "ppo" ? "KL to SFT, estimated" : "PPO against SFT, summed";
  const facts = [
    ["Score", number(answer.score)],
    [sum, `${signed(answer.log_ratio)} nats`],
    ["Length", `${answer.length} tokens${answer.ended ? "" : ", cut off"}`],
  ].map(([term, what]) => make("div", {}, make("dt", {}, term), make("dd", {}, what)));
  const table = look.table ? [tokenTable(answer, name)] : [];
  return [row, readout, make("dl", {}, ...facts), ...table];
}

// --- colours ----------------------------------------------------------------------------------------------------

function key(question) {
  const choices = [...Object.entries(MEASURES).map(([id, { name }]) => [id, name]), ["none", "No colours"]];
  const buttons = choices.map(([measure, name]) => {
    const attributes = { type: "button", "aria-pressed": String(look.measure === measure), "data-focus": measure };
    const button = make("button", { ...attributes, "data-measure": measure }, name);
    button.addEventListener("click", () => relook({ measure }));
    return button;
  });
  const table = make("button", { type: "button", "aria-pressed": String(look.table), "data-focus": "table" }, "Table");
  table.addEventListener("click", () => relook({ table: !look.table }));
  table.dataset.table = "";
  const group = make("div", { class: "choice", role: "group", "aria-label": "Colours show" }, ...buttons);
  return make("div", { class: "key" }, group, make("span", { class: "legend" }), table);
}

function relook(changed) {
  look = { ...look, ...changed };
  for (const { question } of questions.values()) if (question.named) show(question);
}

function paint() {
  const shown = [...questions.values()].map(({ question }) => question).filter((question) => question.named);
  const range = rangeOf(look.measure, shown.flatMap((question) => question.answers));
  for (const question of shown) {
    for (const painter of painters.get(question.id)) painter(look.measure, range);
    questions.get(question.id).article.querySelector(".legend").replaceWith(legend(look.measure, range));
  }
}

// --- votes ------------------------------------------------------------------------------------------------------

function foot(question) {
  const again = make("button", { type: "button", class: "quiet", "data-again": true, disabled: busy }, "Again, new samples");
  again.addEventListener("click", () => ask(question.question, { seed: null, after: question.after }));
  if (question.named) return make("footer", {}, filedVotes(question), make("div", { class: "row" }, again));
  const names = make("button", { type: "button", "data-names": true }, "Show names and numbers");
  names.addEventListener("click", () => change(question, "/api/names", {}));
  return make("footer", {}, ballot(question), make("div", { class: "row" }, names, again));
}

function letterOf(question, id) {
  const answer = question.answers.find((one) => one.id === id);
  return question.named ? answer.name : answer.letter;
}

function said(question, pair) {
  const [left, right] = [letterOf(question, pair.left), letterOf(question, pair.right)];
  if (pair.outcome === "tie") return `${left} and ${right}: tie`;
  if (pair.outcome === "both_bad") return `${left} and ${right}: both bad`;
  return pair.outcome === "left"
    ? `${left} ${pair.strength} better than ${right}`
    : `${right} ${pair.strength} better than ${left}`;
}

function filedVotes(question) {
  const filed = question.pairs.filter((pair) => pair.outcome);
  if (!filed.length) return make("p", { class: "soft" }, "To file a comparison, turn Blind on and ask.");
  const lines = filed.map((pair) => make("li", {}, `Your vote: ${said(question, pair)} `, undoButton(question, pair)));
  return make("ul", { class: "filed" }, ...lines);
}

function undoButton(question, pair) {
  const undo = make("button", { type: "button", class: "quiet", "data-undo": true, "data-focus": "undo" }, "Undo");
  undo.addEventListener("click", () => {
    if (performance.now() >= questions.get(question.id).settled) {
      change(question, "/api/undo", { left: pair.left, right: pair.right, turn: pair.turn });
    }
  });
  return undo;
}

function ballot(question) {
  const held = questions.get(question.id);
  const pair = question.pairs[held.pair];
  const [left, right] = [letterOf(question, pair.left), letterOf(question, pair.right)];
  const parts = [];
  if (question.pairs.length > 1) parts.push(pairChoice(question, held));
  const isOpen = !pair.outcome && !pair.refused;
  const names = { left, right };
  const buttons = VOTES.map(([outcome, strength]) => {
    const label = outcome === "tie" ? "Tie" : `${names[outcome]} ${strength} better`;
    return voteButton(question, pair, outcome, strength, label, isOpen);
  });
  parts.push(make("div", { class: "scale", role: "group", "aria-label": `Which is better, ${left} or ${right}?` }, ...buttons));
  const bad = voteButton(question, pair, "both_bad", null, "Both bad", isOpen);
  bad.classList.add("quiet");
  const state = pair.outcome ? `Saved: ${said(question, pair)}` : pair.refused ?? "";
  const status = make("span", { class: "state soft", role: "status" }, state);
  parts.push(make("div", { class: "row" }, bad, status, ...(pair.outcome ? [undoButton(question, pair)] : [])));
  return make("div", { class: "ballot" }, ...parts);
}

function pairChoice(question, held) {
  const buttons = question.pairs.map((pair, place) => {
    const name = `${letterOf(question, pair.left)} or ${letterOf(question, pair.right)}`;
    const attributes = { type: "button", "aria-pressed": String(place === held.pair), "data-focus": `pair${place}` };
    const button = make("button", { ...attributes, "data-pair": place }, pair.outcome ? `${name} ✓` : name);
    button.addEventListener("click", () => {
      questions.get(question.id).pair = place;
      show(question);
    });
    return button;
  });
  return make("div", { class: "choice", role: "group", "aria-label": "Which two to compare" }, ...buttons);
}

function voteButton(question, pair, outcome, strength, label, isOpen) {
  const isChosen = pair.outcome === outcome && pair.strength === strength;
  const attributes = { type: "button", "data-outcome": outcome, "data-strength": strength, disabled: !isOpen };
  const button = make("button", { ...attributes, "aria-pressed": isChosen ? "true" : null }, label);
  button.addEventListener("click", () => {
    const held = questions.get(question.id);
    if (performance.now() < held.settled) return;
    const seconds = (performance.now() - held.shownAt) / 1000;
    const { left, right, turn } = pair;
    change(question, "/api/vote", { left, right, turn, outcome, strength, seconds });
  });
  return button;
}

// --- conversations and the form ---------------------------------------------------------------------------------

// A conversation goes on from PPO's answer where names are known, else from the first column: that says nothing.
function lastWritten(question) {
  const answer = (question.named && question.answers.find((one) => one.stage === "ppo")) || question.answers[0];
  return { id: answer.id, said: title(question, answer) };
}

function follow(answer) {
  after = answer;
  element("continues").hidden = !answer;
  element("continues-text").textContent = answer ? `Continues from ${answer.said}.` : "";
}

async function submit() {
  const field = element("text");
  const text = field.value;
  if (await ask(text, { after: after?.id ?? null })) {
    if (field.value === text) field.value = "";
    grow();
  }
}

function grow() {
  const field = element("text");
  field.style.height = "auto";
  field.style.height = `${Math.min(field.scrollHeight + 2, 160)}px`;
}

element("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  submit();
});
element("text").addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  element("ask").requestSubmit();
});
element("text").addEventListener("input", grow);
element("help").addEventListener("click", () => element("meaning").showModal());
element("close").addEventListener("click", () => element("meaning").close());
element("anew").addEventListener("click", () => follow(null));
for (const button of document.querySelectorAll("[data-example]")) {
  button.addEventListener("click", () => ask(button.dataset.example, { after: null }));
}

call("/api/questions")
  .then(({ questions: before }) => {
    for (const question of before) show(question);
    element("opening").hidden = before.length > 0;
    if (before.length && hasTurns) follow(lastWritten(before.at(-1)));
    setBusy(false);
    element("text").focus();
    window.scrollTo(0, document.body.scrollHeight);
  })
  .catch(tell);
