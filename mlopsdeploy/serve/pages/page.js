// The page: a form for the chosen model, its answer, the same request for a terminal, live numbers.

import { detectionsOf, showAnswer, showProblem, showUnread } from "./answers.js";
import { make } from "./elements.js";
import { formOf } from "./forms.js";
import { Live } from "./live.js";

const LONGEST = 4000; // characters of a body in the curl line
const MOST = 20000; // characters of JSON that are shown
const EMPTY = "Change what you like, then press Predict.";
const $ = (id) => document.getElementById(id);
const live = new Live();
let model; // as models.json describes it
let form; // see forms.js
let filled; // settles when the form shows the example: pictures take a moment
let asked = 0; // how often Predict was pressed; an answer to an earlier one is not shown

async function start() {
  const known = await (await fetch("page/models.json")).json();
  $("version").textContent = known.version;
  $("choice").hidden = known.models.length < 2;
  $("model").append(...known.models.map(({ name }) => make("option", {}, name)));
  const named = () => known.models.find(({ name }) => name === decodeURIComponent(location.hash.slice(1)));
  $("model").addEventListener("change", () => (location.hash = $("model").value));
  window.addEventListener("hashchange", () => choose(named() ?? known.models[0]));
  $("form").addEventListener("input", changed);
  $("form").addEventListener("submit", (event) => (event.preventDefault(), predict()));
  $("form").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) event.preventDefault(), predict();
  });
  $("example").addEventListener("click", () => ((filled = form.fill(model.example)), changed()));
  $("copy").addEventListener("click", copy);
  choose(named() ?? known.models[0]);
}

function choose(chosen) {
  model = chosen;
  form = formOf(model);
  asked += 1;
  document.title = `${model.name} – mlopsdeploy`;
  $("model").value = model.name;
  $("metadata").href = `v2/models/${encodeURIComponent(model.name)}`;
  const runs = [model.runtime, model.precision].join(" ");
  $("about").replaceChildren(
    make("b", {}, [model.name, model.version].filter(Boolean).join(" ")), ` on ${runs}, at `,
    make("code", {}, `POST ${model.route}`),
  );
  $("hint").textContent = form.hint;
  $("live-title").firstChild.data = `Live: ${model.name} `;
  $("example").textContent = model.example == null ? "Start over" : "Back to the example";
  $("fields").replaceChildren(form.element);
  $("keys").hidden = !form.element.querySelector("textarea"); // elsewhere Enter alone does it
  filled = form.fill(model.example);
  $("told").replaceChildren(make("p", { className: "empty" }, form.request ? "Press Predict." : EMPTY));
  $("latency").textContent = "";
  $("raw").hidden = true;
  changed();
  live.watch(model.name);
}

const address = () => new URL(`./${model.route.slice(1)}`, document.baseURI).href;

/** What is sent: pictures as they are, all else as JSON. */
function request() {
  return form.request?.() ?? { type: "application/json", body: `{${JSON.stringify(model.key)}: ${form.row()}}` };
}

function changed() {
  unmark();
  const { type, body, file, from } = request();
  const long = !file && body !== null && body.length > LONGEST; // for a command line
  const name = file ?? (long ? "row.json" : null);
  const data = name ? `--data-binary ${quoted(from ? "@-" : `@${name}`)}` : `-d ${quoted(body)}`;
  const fetched = from ? `curl -s ${quoted(new URL(from, document.baseURI).href)} | ` : "";
  $("curl").textContent = `${fetched}curl -s ${quoted(address())} -H 'Content-Type: ${type}' ${data}`;
}

/** A word of a shell's command line. */
function quoted(word) {
  return /^[\w./:@%+=-]+$/.test(word) ? word : `'${word.replaceAll("'", "'\\''")}'`;
}

async function predict() {
  const mine = (asked += 1);
  unmark();
  await filled;
  const { type, body } = request();
  if (body === null) return tell(showProblem("No picture", "choose one, or drop it on the form"));
  const started = performance.now();
  let status, text, took, unread;
  try {
    const response = await fetch(address(), {
      method: "POST",
      headers: { "Content-Type": type },
      body,
    });
    text = await response.text();
    took = performance.now() - started;
    status = response.status;
    unread = response.headers.get("X-Unread-Texts");
  } catch {
    if (mine === asked) tell(showProblem("No answer", "the server can't be reached; is it still running?"));
    return;
  }
  if (mine !== asked) return;
  let answer;
  try {
    answer = JSON.parse(text);
  } catch {
    tell(showProblem(`Status ${status}`, "what came back is not JSON"), { status, text, took });
    return;
  }
  // A list of numbers on one line; no text of the answer holds a line break as it is.
  const neat = JSON.stringify(answer, null, 2).replace(/\[\n(?:[\s\d.,e+-]|null)*\]/g, (list) => list.replace(/\s+/g, "").replaceAll(",", ", "));
  const cut = neat.length > MOST ? `${neat.slice(0, MOST)}…\n(${neat.length.toLocaleString("en")} characters in all)` : neat;
  const raw = { status, text: cut, took };
  if (status === 200) {
    tell([...showAnswer(model, answer), ...showUnread(unread)], raw);
    if (body === request().body) form.show?.(detectionsOf(model, answer));
    $("answer").scrollIntoView({ block: "nearest" }); // on a phone it is below the form
  } else {
    const title = status < 500 ? "Not accepted" : "The server failed";
    tell(showProblem(title, answer.detail ?? answer.title ?? ""), raw);
    mark(answer);
  }
}

function tell(parts, raw) {
  $("told").replaceChildren(...parts);
  $("raw").hidden = !raw;
  $("latency").textContent = raw ? `${raw.took.toFixed(1)} ms, there and back` : "";
  $("status").textContent = raw ? raw.status : "";
  $("json").textContent = raw ? raw.text : "";
}

/** Say at the control what is wrong with it. */
function mark(problem) {
  if (!problem.field?.startsWith(model.key)) return;
  const control = form.find(problem.field.slice(model.key.length));
  if (!control) return;
  const words = problem.detail.startsWith(problem.field)
    ? problem.detail.slice(problem.field.length).replace(/^[\s:]+/, "")
    : problem.detail;
  control.after(make("p", { id: "wrong", className: "wrong" }, words));
  control.setAttribute("aria-invalid", "true");
  control.setAttribute("aria-describedby", "wrong");
  control.focus();
}

function unmark() {
  $("wrong")?.remove();
  for (const control of $("fields").querySelectorAll("[aria-invalid]")) {
    control.removeAttribute("aria-invalid");
    control.removeAttribute("aria-describedby");
  }
}

async function copy() {
  try {
    await navigator.clipboard.writeText($("curl").textContent);
  } catch {
    // Over plain HTTP from another machine there is no clipboard; the old way still works.
    getSelection().selectAllChildren($("curl"));
    document.execCommand("copy");
  }
  $("copy").textContent = "Copied";
  setTimeout(() => ($("copy").textContent = "Copy"), 1500);
}

start();
