// Runs the segmenter beside the page, which therefore answers all the time.

import { InferenceSession, Tensor, env } from "./ort.wasm.bundle.min.js";
import { resizeShorterSide } from "./resampling.js";

// More threads need headers that plain file servers do not send.
env.wasm.numThreads = 1;

const session = load();
session.then(
  () => postMessage({ ready: true }),
  (error) => postMessage({ ready: false, error: error.message }),
);

async function load() {
  const names = ["ort-wasm-simd-threaded.wasm", "segmenter.onnx"];
  const [runtime, segmenter] = await Promise.all(names.map(fetchBytes));
  env.wasm.wasmBinary = runtime;
  return InferenceSession.create(new Uint8Array(segmenter));
}

async function fetchBytes(name) {
  const response = await fetch(name);
  if (!response.ok) throw new Error(`the server answered ${response.status} for ${name}`);
  return response.arrayBuffer();
}

onmessage = async ({ data: { id, image, size } }) => {
  try {
    postMessage({ id, logits: await segment(image, size) });
  } catch (error) {
    postMessage({ id, error: error.message });
  }
};

/** Returns the logits of an image of RGBA bytes, at the size that the network sees. */
async function segment(image, size) {
  const { data, width, height } = resizeShorterSide(image, size);
  const rgb = new Uint8Array(3 * width * height);
  for (let i = 0; i < width * height; i++) {
    for (let c = 0; c < 3; c++) rgb[3 * i + c] = data[4 * i + c];
  }
  const images = new Tensor("uint8", rgb, [1, height, width, 3]);
  const { logits } = await (await session).run({ images }, ["logits"]);
  return { data: logits.data, width, height };
}
