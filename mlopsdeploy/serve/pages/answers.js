// An answer as a person reads it: what was found, how sure the model is, and the rest in small.
// Which key of the answer means what, the model's template says.

import { make } from "./elements.js";

const FEW = 6; // values of an array that are shown

export function showAnswer(model, answer) {
  const keys = Object.entries(model.answer).filter(([key]) => key in answer);
  const shown = new Set();
  const several = model.answers.length > 1;
  const parts = model.answers.flatMap((one) => {
    const own = partsOf(model, one, keys, answer, shown);
    const title = several ? one.name : one.label ? "" : one.number; // a number alone needs a name
    return title && own.length ? [make("h3", {}, title), ...own] : own;
  });
  const rest = keys.filter(([key, said]) => !shown.has(key) && !(said === "threshold" && parts.length > 1));
  const facts = rest.map(([key]) => factOf(key, answer[key]));
  const listed = facts.length > 1 && !model.answers.length; // tensors, a line each
  if (facts.length) parts.push(make("dl", { className: listed ? "facts listed" : "facts" }, ...facts));
  return parts;
}

/** One answer of a row: what was found or computed, and bars of probabilities. */
function partsOf(model, one, keys, answer, shown) {
  const parts = [];
  const verdict = keys.map(([key, said]) => verdictOf(model, one, said, answer[key], key)).find(Boolean);
  if (verdict) {
    shown.add(verdict.key);
    parts.push(make("p", { className: verdict.found ? "verdict found" : "verdict" }, verdict.text));
  }
  for (const [key, said] of keys) {
    if (shown.has(key) && said !== "detections") continue;
    const bars = barsOf(model, one, said, answer[key], verdict?.label);
    if (!bars.length) continue;
    shown.add(key);
    parts.push(make("div", { className: "bars" }, ...bars));
  }
  const repeats = verdict && (model.several || verdict.label === undefined || text(answer[verdict.key]) === verdict.text);
  if (verdict && !repeats) parts.push(make("dl", { className: "facts" }, factOf(verdict.key, answer[verdict.key])));
  return parts;
}

function factOf(key, value) {
  return make("div", {}, make("dt", {}, key), make("dd", {}, Array.isArray(value) ? glance(value) : text(value)));
}

/** Of an array its shape, its first values, and what range they have. */
function glance(value) {
  const sizes = [];
  for (let inner = value; Array.isArray(inner); inner = inner[0]) sizes.push(inner.length);
  const all = value.flat(Infinity);
  if (all.length <= FEW) return JSON.stringify(value).replaceAll(",", ", ");
  const numbers = all.filter((each) => typeof each === "number");
  const first = all.slice(0, FEW).map((each) => (each === null ? "null" : short(each))).join(", ");
  const parts = [`${sizes.join("×")} values: ${first}, …`];
  if (numbers.length) {
    const [low, high] = numbers.reduce(([l, h], each) => [Math.min(l, each), Math.max(h, each)], [Infinity, -Infinity]);
    parts.push(`from ${short(low)} to ${short(high)}`);
  }
  if (numbers.length && numbers.length < all.length) parts.push(`${all.length - numbers.length} not a number`);
  return parts.join("; ");
}

const short = (value) => (typeof value === "number" ? String(Number(value.toPrecision(4))) : String(value));

export function showProblem(title, detail) {
  return [make("p", { className: "verdict problem" }, title), make("p", { className: "detail" }, detail)];
}

/** That the model doesn't read the text, where the answer's header says so: `1 de`, `1 unknown`. */
export function showUnread(header) {
  if (!header) return [];
  const language = header.split(" ")[1];
  const why = language === "unknown" ? "most of its tokens are unknown" : `its language is ${language}`;
  return [make("p", { className: "detail" }, `The model doesn't read this text (${why}), so its label means little.`)];
}

/** The objects of an answer, if its template has them. */
export function detectionsOf(model, answer) {
  const key = Object.keys(model.answer).find((each) => model.answer[each] === "detections");
  return (key && answer[key]) || [];
}

/** `2 × Person, Car`. */
function counted(labels) {
  const counts = new Map();
  for (const label of labels) counts.set(label, (counts.get(label) ?? 0) + 1);
  const words = [...counts].map(([label, count]) => (count > 1 ? `${count} × ${label}` : label));
  return words.join(", ") || "nothing found";
}

/** The label in words, and whether it is what the route asks for (`label == fraud`); else the number. */
function verdictOf(model, one, said, value, key) {
  const [column, wanted] = said.split(/\s*==\s*(.*)/);
  if (said === "detections") return { key, text: counted(value.map((found) => found[one.label])) };
  if (!one.label) return said === one.number && !one.probability ? { key, text: text(value) } : null;
  if (column !== one.label) return null;
  if (Array.isArray(value)) return { key, text: counted(value) };
  const other = one.labels.length === 2 && !model.several && one.labels.find((label) => label !== wanted);
  const label = wanted ? (value ? wanted : other || null) : value;
  const words = label === null ? `not ${wanted}` : model.several ? label.replaceAll("|", ", ") : label;
  return { key, label, found: Boolean(wanted && value), text: words === "" ? "no label" : words };
}

function barsOf(model, one, said, value, label) {
  if (said === "detections") return value.map((found) => bar(null, one, found[one.label], found[one.number]));
  if (said === one.number && one.probability && typeof value === "number") {
    return [bar(model, one, model.several ? "the highest" : (label ?? one.number), value)];
  }
  if (!one.scores) return [];
  if (said.startsWith(`${one.scores}.`)) return [bar(model, one, said.slice(one.scores.length + 1), value)];
  if (said !== one.scores) return [];
  if (Array.isArray(value)) return value.map((score, place) => bar(model, one, String(place), score));
  return Object.entries(value).map(([each, score]) => bar(model, one, each, score));
}

function bar(model, one, name, score) {
  const mark = model && markOf(model, one, name); // of objects only those above it are told
  const over = mark === null || score >= mark;
  const fill = make("i", { className: "fill" });
  fill.style.inlineSize = `${100 * Math.min(Math.max(score, 0), 1)}%`;
  const track = make("div", { className: "track" }, fill);
  const head = make("div", { className: "name" }, make("span", {}, model ? `score of ${name}` : name), make("b", {}, text(score)));
  const whole = make("div", { className: over ? "bar over" : "bar" }, head, track);
  if (mark !== null) {
    const line = make("i", { className: "mark" });
    line.style.insetInlineStart = `${100 * mark}%`;
    track.append(line);
    const words = make("span", {}, `threshold ${text(mark)}`);
    const under = make("div", { className: "under" }, words);
    // The words stand on the side of the mark that has room for them.
    if (mark <= 0.6) words.style.marginInlineStart = `${100 * mark}%`;
    else under.classList.add("left"), (words.style.marginInlineEnd = `${100 * (1 - mark)}%`);
    whole.append(under);
  }
  return whole;
}

/** From which score on a label is given; for the first of two, what the second leaves. */
function markOf(model, one, name) {
  const two = one.labels.length === 2 && !model.several;
  const threshold = model.threshold ?? (two || model.several ? 0.5 : null);
  if (threshold === null) return null;
  return two && name === one.labels[0] ? Number((1 - threshold).toPrecision(6)) : threshold;
}

function text(value) {
  return typeof value === "string" ? value || "–" : JSON.stringify(value);
}
