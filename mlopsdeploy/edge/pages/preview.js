"use strict";

const at = (id) => document.getElementById(id);
const EVERY = 500; // milliseconds between two looks at the numbers

function element(name, text, className) {
  const made = document.createElement(name);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

function fill(list, pairs, none) {
  const items = pairs.map(([name, value]) => {
    const item = document.createElement("li");
    item.append(element("span", name), element("span", value));
    return item;
  });
  list.replaceChildren(...(items.length ? items : [element("li", none, "none")]));
}

function show(state) {
  const name = state.camera.includes("://") ? state.camera : state.camera.split("/").pop();
  at("camera").textContent = name;
  at("camera").title = state.camera;
  at("model").textContent = state.model;
  document.title = `${name} · mlopsdeploy edge`;
  const numbers = [["fps", state.fps.toFixed(1)], ["frames", state.frames.toLocaleString("en")]];
  if (state.live) {
    numbers.push(["dropped", state.dropped.toLocaleString("en")]);
    numbers.push(["ms old, p50", state.age.p50.toFixed(0)], ["ms old, p99", state.age.p99.toFixed(0)]);
  }
  if (state.temperature !== null) numbers.push(["°C", state.temperature.toFixed(0)]);
  at("numbers").replaceChildren(...numbers.map(([name, value]) => {
    const pair = document.createElement("div");
    pair.append(element("dt", name), element("dd", value));
    return pair;
  }));
  fill(at("detections"), state.found, "nothing");
  const counts = Object.entries(state.labels).map(([name, n]) => [name, n.toLocaleString("en")]);
  fill(at("labels"), [...(state.counted ?? []), ...counts, ...Object.entries(state.numbers)], "nothing yet");
  at("sent").hidden = !state.sent?.length;
  fill(at("destinations"), state.sent ?? [], "");
  at("stages").replaceChildren(...Object.entries(state.stages).map(([name, time]) => {
    const row = element("tr", "", name === state.bottleneck ? "slowest" : "");
    row.append(element("td", name), element("td", time.p50.toFixed(1)),
      element("td", time.p99.toFixed(1)));
    return row;
  }));
  at("happened").hidden = !state.happened;
  at("happened").textContent = state.happened;
  status(state.happened ? "trouble" : "live", state.happened ? "no picture" : "live");
}

function status(kind, text) {
  at("status").className = kind;
  at("status").textContent = text;
}

async function look() {
  try {
    const answer = await fetch("state", { cache: "no-store" });
    show(await answer.json());
    setTimeout(look, EVERY);
  } catch {
    status("", "ended");
    setTimeout(again, 2000);
  }
}

// The page outlives the program: when that runs again, so does the page.
async function again() {
  try {
    await fetch("state", { cache: "no-store" });
    location.reload();
  } catch {
    setTimeout(again, 2000);
  }
}

// A stream without pictures ends, so that nobody is waited for who has gone.
at("picture").onerror = () => setTimeout(() => { at("picture").src = `stream?${Date.now()}`; }, 2000);
at("picture").src = "stream";
look();
