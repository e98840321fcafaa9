// Opens pictures, has them segmented, and shows and saves the results.

import { draw } from "./drawing.js";
import { probability } from "./resampling.js";

const IMAGE_SIZE = Number(document.body.dataset.imageSize); // Of the training.
const MAX_PIXELS = 50e6; // More do not fit the memory of many phones.
const LONGEST_SHOWN = 1400; // Drawing the whole of a photograph would make the slider jerk.

const element = (id) => document.getElementById(id);
const settings = element("settings");
const worker = new Worker("worker.js", { type: "module" });
const waiting = new Map(); // Who waits for the worker's answer, by the picture's number.
let opened = 0; // Pictures so far; the number of the last.
let current = null; // { name, image, shown, logits } of the picture on the page.

const ready = new Promise((resolve, reject) => {
  const fail = (why) =>
    reject(new Error(`The segmenter cannot be loaded: ${why}. Load the page again.`));
  worker.onerror = (event) => fail(event.message || "this browser cannot run it");
  worker.onmessage = ({ data }) => {
    if (data.ready) resolve();
    else if (data.ready === false) fail(data.error);
    else answer(data);
  };
});

function answer({ id, logits, error }) {
  const { resolve, reject } = waiting.get(id);
  waiting.delete(id);
  if (error) reject(new Error(`The picture cannot be segmented: ${error}.`));
  else resolve(logits);
}

function segment(id, { data, width, height }) {
  worker.postMessage({ id, image: { data, width, height }, size: IMAGE_SIZE });
  return new Promise((resolve, reject) => waiting.set(id, { resolve, reject }));
}

async function openPicture(file) {
  const number = ++opened;
  report("");
  say(`Opening ${file.name} …`);
  try {
    const image = await read(file);
    await ready;
    say(`Segmenting ${file.name} …`);
    const start = performance.now();
    const logits = await segment(number, image);
    const seconds = (performance.now() - start) / 1000;
    if (number !== opened) return; // Another picture was chosen since.
    current = { name: file.name, image, shown: shrink(image), logits };
    element("about").textContent =
      `${image.width} × ${image.height} pixels, segmented in ${seconds.toFixed(2)} s.`;
    show();
    say("");
  } catch (error) {
    if (number !== opened) return;
    say("");
    report(error.message);
  }
}

/** Reads a picture as the command does: upright, as sRGB, transparent parts white. */
async function read(file) {
  const { width, height } = await size(file);
  if (width * height > MAX_PIXELS) {
    throw new Error(
      `${file.name} has ${width.toLocaleString("en")} × ${height.toLocaleString("en")} pixels; ` +
        `this page opens up to ${MAX_PIXELS / 1e6} million. Make it smaller, and try again.`,
    );
  }
  try {
    const options = { imageOrientation: "from-image", colorSpaceConversion: "default" };
    const bitmap = await createImageBitmap(file, options);
    const context = makeContext(bitmap.width, bitmap.height);
    context.fillStyle = "white";
    context.fillRect(0, 0, bitmap.width, bitmap.height);
    context.drawImage(bitmap, 0, 0);
    bitmap.close();
    return context.getImageData(0, 0, context.canvas.width, context.canvas.height);
  } catch {
    throw new Error(unreadable(file));
  }
}

/** Returns the size of a picture before its pixels take memory. */
async function size(file) {
  const image = new Image();
  image.src = URL.createObjectURL(file);
  try {
    await new Promise((resolve, reject) => {
      Object.assign(image, { onload: resolve, onerror: reject });
    });
    return { width: image.naturalWidth, height: image.naturalHeight };
  } catch {
    throw new Error(unreadable(file));
  } finally {
    URL.revokeObjectURL(image.src);
  }
}

function unreadable(file) {
  return (
    `${file.name} cannot be opened: it is no picture, is damaged, or has another format or more ` +
    `pixels than this browser can read. Try a JPEG, PNG or WebP file of at most ` +
    `${MAX_PIXELS / 1e6} million pixels.`
  );
}

function makeContext(width, height) {
  const canvas = Object.assign(document.createElement("canvas"), { width, height });
  return canvas.getContext("2d", { colorSpace: "srgb", willReadFrequently: true });
}

/** Returns an image as large as it is shown. */
function shrink(image) {
  const scale = Math.min(1, LONGEST_SHOWN / Math.max(image.width, image.height));
  if (scale === 1) return image;
  const whole = makeContext(image.width, image.height);
  whole.putImageData(image, 0, 0);
  const sides = [image.width, image.height];
  const [width, height] = sides.map((side) => Math.max(1, Math.round(scale * side)));
  const small = makeContext(width, height);
  small.imageSmoothingQuality = "high";
  small.drawImage(whole.canvas, 0, 0, width, height);
  return small.getImageData(0, 0, width, height);
}

/** Draws the chosen view of an image of the current picture. */
function render(image) {
  const foreground = probability(current.logits, image.width, image.height, threshold());
  return draw(settings.elements.view.value, image, foreground);
}

const threshold = () => settings.elements.threshold.valueAsNumber;

function show() {
  const { view } = settings.elements;
  element("chosen").textContent = threshold().toFixed(2);
  if (!current) return;
  const drawn = render(current.shown);
  const canvas = element("canvas");
  Object.assign(canvas, { width: drawn.width, height: drawn.height });
  canvas.style.setProperty("--ratio", drawn.width / drawn.height);
  canvas.getContext("2d").putImageData(drawn, 0, 0);
  canvas.setAttribute("aria-label", `The ${view.value} of ${current.name}`);
  document.body.classList.add("opened");
  element("result").hidden = false;
}

async function download() {
  const drawn = render(current.image);
  const context = makeContext(drawn.width, drawn.height);
  context.putImageData(drawn, 0, 0);
  const file = await new Promise((resolve) => context.canvas.toBlob(resolve, "image/png"));
  if (!file) return report(`This browser cannot save ${drawn.width} × ${drawn.height} pixels.`);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(file);
  link.download = `${current.name.replace(/\.[^.]*$/, "")}_${settings.elements.view.value}.png`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000); // Once the browser has saved it.
}

function say(text) {
  element("status").textContent = text;
}

function report(text) {
  element("problem").textContent = text;
  element("problem").hidden = !text;
}

function openFirst(files) {
  if (files?.length) openPicture(files[0]);
}

element("file").addEventListener("change", (event) => {
  openFirst(event.target.files);
  event.target.value = ""; // So that the same file can be chosen again.
});
document.addEventListener("paste", (event) => openFirst(event.clipboardData.files));
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  document.body.classList.add("dragging");
});
for (const name of ["dragleave", "drop"]) {
  document.addEventListener(name, () => document.body.classList.remove("dragging"));
}
document.addEventListener("drop", (event) => {
  event.preventDefault();
  openFirst(event.dataTransfer.files);
});
settings.addEventListener("input", show);
settings.addEventListener("submit", (event) => {
  event.preventDefault();
  download();
});

say("Loading the segmenter …");
ready.then(
  () => opened || say("Ready."),
  (error) => {
    say("");
    report(error.message);
  },
);
