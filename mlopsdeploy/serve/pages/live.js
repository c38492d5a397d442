// How the server is doing, read from /metrics every two seconds.
// Rates and percentiles come from the differences of its counters over the last ten.

const EVERY = 2_000; // ms
const WINDOW = 10_000; // ms
const POINTS = 60; // two minutes; fewer are drawn wider, down to a quarter of that
const SVG = "http://www.w3.org/2000/svg";
const $ = (id) => document.getElementById(id);

export class Live {
  #snapshots = [];
  #points = [];
  #model = "";
  #timer = 0;

  /** Show the numbers of a model from now on. */
  watch(model) {
    this.#model = model;
    this.#snapshots = [];
    this.#points = [];
    this.#poll();
  }

  constructor() {
    document.addEventListener("visibilitychange", () => this.#poll());
  }

  async #poll() {
    clearTimeout(this.#timer);
    if (document.hidden || !this.#model) return;
    const model = this.#model;
    const timer = (this.#timer = setTimeout(() => this.#poll(), EVERY));
    try {
      const response = await fetch("metrics", { cache: "no-store" });
      if (!response.ok) throw new Error(response.statusText);
      const counted = read(await response.text(), model);
      if (timer === this.#timer) this.#take({ at: performance.now(), ...counted });
    } catch {
      $("pulse").textContent = "the server does not answer";
      $("pulse").className = "quiet down";
    }
  }

  #take(snapshot) {
    const last = this.#snapshots.at(-1);
    // Counters that run backwards, or a pause: the server is another, or the page was hidden.
    if (last && (snapshot.requests < last.requests || snapshot.at - last.at > 3 * EVERY)) {
      this.#snapshots = [];
      this.#points = [];
    }
    this.#snapshots.push(snapshot);
    while (this.#snapshots.length > 2 && snapshot.at - this.#snapshots[1].at >= WINDOW - EVERY / 2) {
      this.#snapshots.shift();
    }
    if (this.#snapshots.length > 1) {
      this.#points = [...this.#points, between(this.#snapshots[0], snapshot)].slice(-POINTS);
    }
    this.#show(snapshot);
  }

  #show(snapshot) {
    const now = this.#points.at(-1);
    $("pulse").textContent = "every 2 seconds";
    $("pulse").className = "quiet up";
    $("rate").textContent = now ? rate(now.rate) : "–";
    $("p50").textContent = duration(now?.p50);
    $("p99").textContent = duration(now?.p99);
    $("total").textContent = snapshot.requests.toLocaleString("en");
    $("refused").textContent = [
      snapshot.refused && `${snapshot.refused.toLocaleString("en")} refused`,
      snapshot.failed && `${snapshot.failed.toLocaleString("en")} failed`,
    ].filter(Boolean).join(", ") || "none refused";
    for (const [name, say] of [["rate", rate], ["p50", duration], ["p99", duration]]) {
      draw($(`${name}-line`), this.#points.map((point) => point[name]), say);
    }
  }
}

/** The counters of one model in Prometheus' text format. */
export function read(exposition, model) {
  const found = { requests: 0, refused: 0, failed: 0, buckets: new Map() };
  for (const line of exposition.split("\n")) {
    const match = /^(mlopsdeploy_\w+)\{(.*)\} (\S+)/.exec(line);
    if (!match) continue;
    const [, name, inner, said] = match;
    const labels = Object.fromEntries(
      [...inner.matchAll(/(\w+)="((?:[^"\\]|\\.)*)"/g)].map(([, key, value]) => [key, value]),
    );
    if (labels.model !== model) continue;
    const value = Number(said);
    if (name === "mlopsdeploy_requests_total") {
      found.requests += value;
      if (labels.code.startsWith("4")) found.refused += value;
      if (labels.code.startsWith("5")) found.failed += value;
    } else if (name === "mlopsdeploy_request_seconds_bucket") {
      const bound = labels.le === "+Inf" ? Infinity : Number(labels.le);
      found.buckets.set(bound, (found.buckets.get(bound) ?? 0) + value);
    }
  }
  return found;
}

function between(before, after) {
  const buckets = [...after.buckets]
    .map(([bound, count]) => [bound, count - (before.buckets.get(bound) ?? 0)])
    .sort(([a], [b]) => a - b);
  return {
    rate: (1000 * (after.requests - before.requests)) / (after.at - before.at),
    p50: quantile(0.5, buckets),
    p99: quantile(0.99, buckets),
  };
}

/** Seconds; as Prometheus' histogram_quantile: evenly spread within a bucket. Null without requests. */
export function quantile(share, buckets) {
  const count = buckets.at(-1)?.[1] ?? 0;
  if (!count) return null;
  const rank = share * count;
  const place = buckets.findIndex(([, upTo]) => upTo >= rank);
  const [bound, upTo] = buckets[place];
  const [lower, below] = place ? buckets[place - 1] : [0, 0];
  if (bound === Infinity) return lower;
  return lower + ((bound - lower) * (rank - below)) / (upTo - below);
}

function rate(value) {
  return value >= 10 ? Math.round(value).toLocaleString("en") : String(Number(value.toFixed(1)));
}

function duration(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds >= 1) return `${seconds.toPrecision(3)} s`;
  const [value, unit] = seconds >= 0.001 ? [seconds * 1e3, "ms"] : [seconds * 1e6, "µs"];
  return `${value >= 100 ? Math.round(value) : Number(value.toPrecision(2))} ${unit}`;
}

/** A line through the latest values, newest at the right; where one is null, the line breaks. */
function draw(svg, values, say) {
  const [width, height, edge] = [Math.max(values.length, POINTS / 4) - 1, 30, 2];
  const highest = Math.max(...values.map((value) => value ?? 0), 0);
  const runs = [];
  values.forEach((value, place) => {
    if (value === null) return;
    const x = width - (values.length - 1 - place);
    const y = height - edge - (highest ? (value / highest) * (height - 2 * edge) : 0);
    if (!place || values[place - 1] === null) runs.push([]);
    runs.at(-1).push(`${x},${y.toFixed(2)}`);
  });
  const line = runs.map((run) => `M${run.join("L")}${run.length === 1 ? "h.5" : ""}`).join("");
  const under = runs
    .map((run) => `M${run.join("L")}L${run.at(-1).split(",")[0]},${height}L${run[0].split(",")[0]},${height}Z`)
    .join("");
  svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
  svg.setAttribute("preserveAspectRatio", "none");
  svg.setAttribute("role", "img");
  svg.setAttribute("aria-label", highest ? `lately; highest ${say(highest)}` : "no requests yet");
  svg.replaceChildren(...[["area", under], ["line", line]].map(([name, d]) => {
    const path = document.createElementNS(SVG, "path");
    path.setAttribute("class", name);
    path.setAttribute("d", d);
    return path;
  }));
}
