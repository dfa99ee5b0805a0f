// Tokens as coloured spans with their numbers: on hover, by arrow keys, and as a table.
// Leaves out questions, votes and the server (chat.js). Texts only ever become textContent, never HTML.

export const MEASURES = {
  log_ratio: { name: "PPO against SFT", unit: " nats", low: "SFT likelier", high: "PPO likelier", bounds: ["≤ ", "≥ "] },
  value: { name: "Critic’s value", unit: "", low: "less reward ahead", high: "more reward ahead", bounds: ["", ""] },
};
const LEVELS = 4; // colours on each side of none
const LOG_RATIO_RANGE = 2; // nats: seven times likelier; a base model's tokens would leave the others pale otherwise
const STEPS = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100];
const HINT = "Point at a token, or walk with the arrow keys.";

export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

export function number(x, digits = 2) {
  return x === null ? "–" : x.toFixed(digits).replace(/^-(0\.?0*)$/, "$1").replace("-", "−");
}

export function signed(x, digits = 2) {
  const text = number(x, digits);
  return x === null || text.startsWith("−") || Number(text) === 0 ? text : `+${text}`;
}

function chance(logProb) {
  if (logProb === null) return "–";
  const percent = 100 * Math.exp(logProb);
  return percent < 0.1 ? "< 0.1 %" : `${percent.toFixed(percent < 9.95 ? 1 : 0)} %`;
}

// Where colours end: fixed for log-ratios, for values the page's largest, rounded up.
export function rangeOf(measure, answers) {
  if (measure === "log_ratio") return LOG_RATIO_RANGE;
  const sizes = answers.flatMap((answer) => answer.tokens.map((token) => Math.abs(token[measure] ?? 0)));
  const largest = Math.max(0, ...sizes);
  return STEPS.find((step) => step >= largest) ?? largest;
}

function level(x, range) {
  return x === null ? 0 : Math.sign(x) * Math.min(LEVELS, Math.round((LEVELS * Math.abs(x)) / range));
}

function shownText(token) {
  if (token.is_special) return "end";
  return token.text === "" ? "·" : token.text;
}

function spoken(token) {
  if (token.is_special) return "End of the answer";
  return token.text === "" ? "Part of a character" : `“${token.text}”`;
}

function numbers(token) {
  const value = token.value === null ? "" : `; value ${signed(token.value)}`;
  return `PPO against SFT ${signed(token.log_ratio)} nats${value}; PPO ${chance(token.ppo)}, SFT ${chance(token.sft)}`;
}

// The answer as a row of tokens: one stop of the Tab key, arrow keys inside.
export function tokenRow(answer, name) {
  const readout = make("p", { class: "readout soft" }, HINT);
  const row = make("div", { class: "tokens text", role: "list", "aria-label": `Tokens of ${name}` });
  const spans = answer.tokens.map((token, place) => {
    const kind = token.is_special ? " special" : token.text === "" ? " part" : "";
    const label = `${spoken(token)}: ${numbers(token)}`;
    const attributes = { class: `token${kind}`, role: "listitem", tabindex: place ? -1 : 0, "aria-label": label };
    return make("span", attributes, shownText(token));
  });
  const tell = (place) => {
    const token = answer.tokens[place];
    readout.replaceChildren(make("b", {}, spoken(token)), ` ${numbers(token)}`);
    for (const span of spans) span.tabIndex = span === spans[place] ? 0 : -1;
  };
  const placeOf = (event) => spans.indexOf(event.target);
  for (const kind of ["pointerover", "focusin", "click"]) {
    row.addEventListener(kind, (event) => placeOf(event) >= 0 && tell(placeOf(event)));
  }
  row.addEventListener("keydown", (event) => {
    const last = spans.length - 1;
    const here = placeOf(event);
    const goals = { ArrowRight: Math.min(here + 1, last), ArrowLeft: Math.max(here - 1, 0), Home: 0, End: last };
    if (here < 0 || !(event.key in goals)) return;
    event.preventDefault();
    spans[goals[event.key]].focus();
  });
  row.append(...spans);
  const paint = (measure, range) => {
    row.dataset.measure = measure;
    spans.forEach((span, place) => {
      span.dataset.level = measure in MEASURES ? level(answer.tokens[place][measure], range) : 0;
    });
  };
  return { row, readout, paint };
}

export function tokenTable(answer, name) {
  const heads = ["Token", "PPO − SFT, nats", "Value", "PPO", "SFT"];
  const rows = answer.tokens.map((token) =>
    make(
      "tr",
      {},
      make("th", { scope: "row", class: "token-cell" }, shownText(token)),
      ...[signed(token.log_ratio), signed(token.value), chance(token.ppo), chance(token.sft)].map((text) =>
        make("td", { class: "n" }, text),
      ),
    ),
  );
  const head = heads.map((text, place) => make("th", { scope: "col", class: place ? "n" : null }, text));
  return make(
    "div",
    { class: "scroll" },
    make(
      "table",
      { class: "token-table" },
      make("caption", { class: "unseen" }, `Tokens of ${name} and their numbers`),
      make("thead", {}, make("tr", {}, ...head)),
      make("tbody", {}, ...rows),
    ),
  );
}

// What the colours mean, from one end to the other.
export function legend(measure, range) {
  if (!(measure in MEASURES)) return make("span", { class: "legend" });
  const { low, high, unit, bounds } = MEASURES[measure];
  const [least, most] = [-range, range].map((x) => `${signed(x, range < 1 ? 1 : 0)}${unit}`);
  const swatches = Array.from({ length: 2 * LEVELS + 1 }, (_, place) =>
    make("span", { class: "swatch", "data-level": place - LEVELS }),
  );
  return make(
    "span",
    { class: "legend", "data-measure": measure },
    make("span", {}, `${bounds[0]}${least}, ${low}`),
    make("span", { class: "swatches", "aria-hidden": "true" }, ...swatches),
    make("span", {}, `${bounds[1]}${most}, ${high}`),
  );
}
