// A form for each kind of model; that of pictures is in pictures.js. All have the same members:
//   element       what to show
//   fill(row)     show a row; without one, a neutral row
//   row()         the row as JSON text, of what stands in the form
//   find(where)   the control that a problem's pointer (".V4", "[3]" or "") means

import { make } from "./elements.js";
import { pictureForm } from "./pictures.js";

const JSON_NUMBER = /^-?(0|[1-9]\d*)(\.\d+)?(e[+-]?\d+)?$/i;
const ANY_NUMBER = /^[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i;

export function formOf(model) {
  const makers = { text: textForm, numbers: gridForm, values: gridForm, arrays: arraysForm, pictures: pictureForm };
  return model.kind === "numbers" && !model.named ? listForm(model) : makers[model.kind](model);
}

/**
 * What was typed, as JSON: a number exactly as it stands there. Anything else goes out as text, and
 * the server, which alone knows what the model takes, says what is wrong with it.
 */
function numeral(typed) {
  const text = typed.trim();
  if (JSON_NUMBER.test(text)) return text;
  return ANY_NUMBER.test(text) ? String(Number(text)) : JSON.stringify(text);
}

function kindOf(dtype) {
  if (dtype === "str") return "text";
  return dtype === "bool" ? "bool" : "number";
}

/** One control per feature, in a grid. */
function gridForm(model) {
  const controls = model.fields.map((field, place) => control(field, `field-${place}`));
  const longest = Math.max(...model.fields.map((field) => field.name.length));
  const element = make("div", { className: longest > 12 ? "grid wide" : "grid" });
  element.setAttribute("role", "group");
  element.setAttribute("aria-label", "Features");
  model.fields.forEach((field, place) => {
    const label = make("label", { htmlFor: controls[place].id, title: field.name }, field.name);
    element.append(make("div", { className: "cell" }, label, controls[place]));
  });

  element.addEventListener("paste", (event) => {
    const values = event.clipboardData.getData("text").trim().split(/\s*[,;\t\n]\s*/);
    if (values.length !== controls.length || values.length < 2) return;
    event.preventDefault();
    values.forEach((value, place) => (controls[place].value = value));
    element.dispatchEvent(new Event("input", { bubbles: true }));
  });

  return {
    element,
    hint: model.fields.length > 1
      ? `A row of ${model.fields.length} values, from a spreadsheet or a CSV file, can be pasted into any field.`
      : "",
    fill(row) {
      model.fields.forEach((field, place) => {
        const neutral = { text: "", bool: false, number: 0 }[kindOf(field.dtype)];
        const value = Array.isArray(row) ? row[place] : row?.[field.name];
        controls[place].value = String(value ?? neutral);
      });
    },
    row() {
      const parts = model.fields.map((field, place) => {
        const typed = controls[place].value;
        const kind = kindOf(field.dtype);
        if (kind === "number" && !typed.trim()) return null; // left out: the server says "missing"
        const value = { text: JSON.stringify, bool: String, number: numeral }[kind](typed);
        return `${JSON.stringify(field.name)}: ${value}`;
      });
      return `{${parts.filter(Boolean).join(", ")}}`;
    },
    find(where) {
      const index = /^\[(\d+)\]$/.exec(where);
      const name = where.slice(1);
      const place = index ? Number(index[1]) : model.fields.findIndex((field) => field.name === name);
      return controls[place];
    },
  };
}

function control(field, id) {
  if (kindOf(field.dtype) === "bool") {
    return make("select", { id }, make("option", {}, "true"), make("option", {}, "false"));
  }
  // Not type=number: that hides what was typed when it is no number, and turns with the wheel.
  return make("input", { id, type: "text", spellcheck: false, autocomplete: "off", autocapitalize: "off" });
}

function area(id, text, rows) {
  const box = make("textarea", { id, rows, spellcheck: false });
  return { box, element: make("div", { className: "cell" }, make("label", { htmlFor: id }, text), box) };
}

function textForm() {
  const { box, element } = area("field-0", "Text", 7);
  box.spellcheck = true;
  box.placeholder = "Write or paste a text";
  return {
    element,
    hint: "",
    fill: (row) => (box.value = typeof row === "object" && row ? Object.values(row)[0] : row ?? ""),
    row: () => JSON.stringify(box.value),
    find: () => box,
  };
}

/** Numbers that have no names, as a list. */
function listForm(model) {
  const { box, element } = area("field-0", `${model.width} numbers`, 7);
  const words = () => [...box.value.matchAll(/[^\s,;[\]]+/g)];
  const count = make("p", { className: "quiet" });
  const recount = () => (count.textContent = `${words().length} of ${model.width}`);
  box.classList.add("mono");
  box.addEventListener("input", recount);
  element.append(count);
  return {
    element,
    hint: "Commas, spaces or new lines between them.",
    fill(row) {
      box.value = (row ?? Array(model.width).fill(0)).join(", ");
      recount();
    },
    row: () => `[${words().map((word) => numeral(word[0])).join(", ")}]`,
    find(where) {
      const word = words()[Number(/^\[(\d+)\]$/.exec(where)?.[1])];
      if (word) box.setSelectionRange(word.index, word.index + word[0].length);
      return box;
    },
  };
}

/** A control for each input: single values as elsewhere, arrays as JSON, which is sent as typed. */
function arraysForm(model) {
  const one = model.fields.length === 1;
  const boxes = model.fields.map((field, place) => {
    const id = `field-${place}`;
    const what = field.shape.length ? ` (${sizes(field.shape)} ${KINDS[kindOf(field.dtype)]})` : "";
    const words = `${field.name}${what}`;
    if (!field.shape.length) {
      const box = control(field, id);
      return { box, element: make("div", { className: "cell" }, make("label", { htmlFor: id }, words), box) };
    }
    const made = area(id, words, Math.min(Math.max(one ? 9 : 3, field.shape.length > 1 ? field.shape[0] : 0), 12));
    made.box.classList.add("mono");
    made.box.wrap = field.shape.length > 1 ? "off" : "soft";
    return made;
  });
  const element = make("div", { className: "arrays" }, ...boxes.map((each) => each.element));
  element.setAttribute("role", "group");
  element.setAttribute("aria-label", "Inputs");
  const open = model.fields.some((field) => field.shape.includes(-1));
  return {
    element,
    hint: `Arrays are JSON lists${open ? "; n is any size" : ""}.`,
    fill(row) {
      model.fields.forEach((field, place) => {
        const named = row && !Array.isArray(row) && typeof row === "object" && field.name in row;
        const value = named ? row[field.name] : one ? row : undefined;
        const kind = kindOf(field.dtype);
        const neutral = { text: "", bool: false, number: 0 }[kind];
        const { box } = boxes[place];
        if (field.shape.length) box.value = lines(value ?? nested(field.shape, neutral));
        else box.value = String(value ?? neutral);
      });
    },
    row() {
      const values = model.fields.map((field, place) => {
        const typed = boxes[place].box.value;
        if (field.shape.length) return typed.trim().replace(/\s*\n\s*/g, " ") || "null";
        return { text: JSON.stringify, bool: String, number: numeral }[kindOf(field.dtype)](typed);
      });
      if (one) return values[0];
      return `{${model.fields.map((field, place) => `${JSON.stringify(field.name)}: ${values[place]}`).join(", ")}}`;
    },
    find(where) {
      const place = model.fields.findIndex((field) => where === `.${field.name}`);
      return boxes[Math.max(place, 0)].box;
    },
  };
}

const KINDS = { text: "texts", bool: "true or false", number: "numbers" };
const sizes = (shape) => shape.map((size) => (size < 0 ? "n" : size)).join("×");

/** JSON with a line for each of the innermost lists. */
function lines(value, margin = "") {
  if (!Array.isArray(value) || !value.some(Array.isArray)) return JSON.stringify(value)?.replaceAll(",", ", ");
  return `[${value.map((item) => lines(item, `${margin} `)).join(`,\n${margin} `)}]`;
}

function nested(shape, neutral) {
  if (!shape.length) return neutral;
  return Array.from({ length: Math.max(shape[0], 1) }, () => nested(shape.slice(1), neutral));
}
