/** Worker that runs the network with ONNX Runtime in WebAssembly, so that the page stays responsive. */

import { findMask } from "./find_mask.js";
import { findObjects } from "./find_objects.js";
import { preprocess } from "./preprocess.js";
import * as ort from "./runtime/ort.wasm.min.mjs";

const MAX_THREADS = 4;
const TOP = 5;

ort.env.wasm.wasmPaths = new URL("runtime/", import.meta.url).href;
// Threads need shared memory, which requires cross-origin isolation (COOP and COEP headers of the host).
ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(MAX_THREADS, navigator.hardwareConcurrency) : 1;

const ready = load();

async function load() {
  const [description, model] = await Promise.all([
    fetch("model.json").then((response) => response.json()),
    fetch("model.onnx").then((response) => response.arrayBuffer()),
  ]);
  const session = await ort.InferenceSession.create(new Uint8Array(model), { executionProviders: ["wasm"] });
  return { description, session };
}

/** Returns the classes, objects or mask of an image, as `startApp` takes them. */
async function classify(image) {
  const { description, session } = await ready;
  const start = performance.now();
  const { data, shape, ...sizes } = await preprocess(image, description.preprocessing);
  const preprocessed = performance.now();
  const results = await session.run({ [session.inputNames[0]]: new ort.Tensor("uint8", data, shape) });
  const end = performance.now();
  const [preprocessing, inference] = [preprocessed - start, end - preprocessed].map((time) => time.toFixed(1));
  const time = `${inference} ms inference, ${preprocessing} ms preprocessing, in this browser`;
  return { ...(await interpret(results[session.outputNames[0]].data, description, sizes)), time };
}

/** The classes with the highest probabilities, or the objects or the mask of an image. */
async function interpret(outputs, description, { width, height, inside }) {
  const image = { width, height, inside };
  if (description.task === "detect") {
    return { predictions: [], found: { width, height, objects: findObjects(outputs, description, image) } };
  }
  if (description.task === "segment") {
    return { predictions: [], found: { width, height, ...(await findMask(outputs, description, image)) } };
  }
  const predictions = [...outputs.keys()]
    .sort((a, b) => outputs[b] - outputs[a])
    .slice(0, TOP)
    .map((index) => ({ name: description.class_names[index], probability: outputs[index] }));
  return { predictions };
}

let last = Promise.resolve(); // a session runs one image at a time

self.onmessage = ({ data: { id, image } }) => {
  last = last
    .then(() => classify(image))
    .then((result) => self.postMessage({ id, result }))
    .catch((error) => self.postMessage({ id, error: error.message }));
};
