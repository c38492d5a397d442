// An answer as a person reads it: what was found, how sure the model is, and the rest in small.
// Which key of the answer means what, the model's template says.

import { make } from "./elements.js";

export function showAnswer(model, answer) {
  const keys = Object.entries(model.answer).filter(([key]) => key in answer);
  const shown = new Set();
  const parts = [];
  const verdict = keys.map(([key, said]) => verdictOf(model, said, answer[key], key)).find(Boolean);
  if (verdict) {
    shown.add(verdict.key);
    parts.push(make("p", { className: verdict.found ? "verdict found" : "verdict" }, verdict.text));
  }
  const label = verdict?.label;
  for (const [key, said] of keys) {
    if (shown.has(key) && said !== "detections") continue;
    const bars = barsOf(model, said, answer[key], label);
    if (!bars.length) continue;
    shown.add(key);
    parts.push(make("div", { className: "bars" }, ...bars));
  }
  const rest = keys.filter(([key, said]) => !shown.has(key) && !(said === "threshold" && parts.length > 1));
  const facts = rest.map(([key]) =>
    make("div", {}, make("dt", {}, key), make("dd", {}, text(answer[key]))),
  );
  const repeats = verdict && (verdict.label === undefined || text(answer[verdict.key]) === verdict.text);
  if (verdict && !repeats) {
    facts.unshift(make("div", {}, make("dt", {}, verdict.key), make("dd", {}, text(answer[verdict.key]))));
  }
  if (facts.length) parts.push(make("dl", { className: "facts" }, ...facts));
  return parts;
}

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

/** The label in words, and whether it is what the route asks for (`label == fraud`). */
function verdictOf(model, said, value, key) {
  const wanted = /^label\s*==\s*(.+)$/.exec(said)?.[1];
  if (said === "detections") return { key, text: counted(value.map(({ label }) => label)) };
  if (said === "label" && Array.isArray(value)) return { key, text: counted(value) };
  if (said !== "label" && !wanted) return null;
  const other = model.labels.length === 2 && model.labels.find((label) => label !== wanted);
  const label = wanted ? (value ? wanted : other || null) : value;
  const words = label ?? `not ${wanted}`;
  return { key, label, found: Boolean(wanted && value), text: words === "" ? "no label" : words };
}

function barsOf(model, said, value, label) {
  const [column, name] = said.split(/\.(.*)/);
  if (column === "score" && typeof value === "number") return [bar(model, label ?? "score", value)];
  if (said === "detections") return value.map((found) => bar(null, found.label, found.score));
  if (column !== "scores") return [];
  if (name) return [bar(model, name, value)];
  if (Array.isArray(value)) return value.map((score, place) => bar(model, String(place), score));
  return Object.entries(value).map(([each, score]) => bar(model, each, score));
}

function bar(model, name, score) {
  const mark = model && markOf(model, name); // of objects only those above it are told
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
function markOf(model, name) {
  const two = model.labels.length === 2;
  const threshold = model.threshold ?? (two ? 0.5 : null);
  if (threshold === null) return null;
  return two && name === model.labels[0] ? Number((1 - threshold).toPrecision(6)) : threshold;
}

function text(value) {
  return typeof value === "string" ? value || "–" : JSON.stringify(value);
}
