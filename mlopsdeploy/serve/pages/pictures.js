// The form of a model of pictures: a file, chosen or dropped, and what was found drawn over it.

import { make } from "./elements.js";

const NONE = "No picture yet: choose one, or drop it here.";
const UNSEEN = "This browser can't show the picture; the server may be able to read it.";
const GREEN = "rgb(60, 220, 80)";
const INK = "rgb(5, 30, 10)";

/** See forms.js; instead of `row` it has `request`: type and body, and for curl `file` or `from`. */
export function pictureForm(model) {
  const input = make("input", { id: "field-0", type: "file", accept: model.types.join(",") });
  const label = make("label", { htmlFor: input.id }, "Picture");
  const canvas = make("canvas", { hidden: true });
  const note = make("p", { className: "quiet" }, NONE);
  const element = make("div", { className: "picture" }, make("div", { className: "cell" }, label, input), canvas, note);
  canvas.setAttribute("role", "img");
  let chosen = null; // the file, and where it came from if it is the example
  let bitmap = null;

  async function choose(file, from) {
    chosen = { file, from };
    const read = file && (await createImageBitmap(file).catch(() => null));
    if (chosen.file !== file) return; // another one was chosen meanwhile
    bitmap = read;
    note.textContent = file ? UNSEEN : NONE;
    note.hidden = Boolean(bitmap);
    show([]);
    element.dispatchEvent(new Event("input", { bubbles: true }));
  }

  /** Draw the picture, with what was found on it. */
  function show(detections) {
    canvas.hidden = !bitmap;
    if (!bitmap) return;
    draw(canvas, bitmap, detections);
    const found = detections.map(({ label: name }) => name).join(", ");
    canvas.setAttribute("aria-label", found ? `The picture, with boxes around: ${found}` : "The picture");
  }

  input.addEventListener("change", () => choose(input.files[0] ?? null));
  element.addEventListener("dragover", (event) => (event.preventDefault(), element.classList.add("over")));
  element.addEventListener("dragleave", () => element.classList.remove("over"));
  element.addEventListener("drop", (event) => {
    event.preventDefault();
    element.classList.remove("over");
    if (!event.dataTransfer.files.length) return;
    input.files = event.dataTransfer.files;
    choose(input.files[0]);
  });

  return {
    element,
    hint: "JPEG, PNG, WebP or BMP. It goes to this server and nowhere else.",
    show,
    fill: async (example) => {
      input.value = "";
      chosen = { file: null };
      const before = chosen;
      const blob = example && (await (await fetch(example)).blob());
      if (chosen !== before) return;
      if (!blob) return choose(null);
      const files = new DataTransfer();
      files.items.add(new File([blob], "the example", { type: blob.type }));
      input.files = files.files;
      await choose(input.files[0], example);
    },
    request: () => {
      const file = chosen?.file ?? null;
      return { type: file?.type || model.types[0], body: file, file: file?.name ?? "picture.jpg", from: chosen?.from };
    },
    find: () => input,
  };
}

/** As `mlopsdeploy edge` draws: green boxes with a dark rim, label and score at their top left. */
function draw(canvas, bitmap, detections) {
  const dots = devicePixelRatio;
  const scale = Math.min(1, (canvas.parentElement.clientWidth * dots) / bitmap.width); // not sharper than the screen
  const width = (canvas.width = Math.max(Math.round(bitmap.width * scale), 1));
  const height = (canvas.height = Math.max(Math.round(bitmap.height * scale), 1));
  const context = canvas.getContext("2d");
  context.drawImage(bitmap, 0, 0, width, height);
  const size = Math.min(Math.max(Math.min(height, (width * 3) / 4) / 28, 12 * dots), 64 * dots);
  const line = Math.max(2, Math.round(size / 7));
  context.font = `600 ${size}px sans-serif`;
  context.textBaseline = "middle";
  const upwards = [...detections].sort((a, b) => a.score - b.score); // the surest above the others
  const places = upwards.map(({ relative: [x1, y1, x2, y2] }) => [x1 * width, y1 * height, (x2 - x1) * width, (y2 - y1) * height]);
  for (const place of places) {
    for (const [color, wide] of [[INK, line + 2], [GREEN, line]]) {
      context.strokeStyle = color;
      context.lineWidth = wide;
      context.strokeRect(...place);
    }
  }
  upwards.forEach(({ label, score }, number) => {
    const words = `${label} ${Math.round(100 * score)}%`;
    const [wide, high] = [context.measureText(words).width + size / 2, size * 1.4];
    const x = Math.min(Math.max(places[number][0] - line / 2, 0), Math.max(width - wide, 0));
    const above = places[number][1] - line / 2 - high;
    const y = above >= 0 ? above : Math.max(places[number][1] - line / 2, 0);
    context.fillStyle = GREEN;
    context.fillRect(x, y, wide, high);
    context.fillStyle = INK;
    context.fillText(words, x + size / 4, y + high / 2);
  });
}
