/** Classifies pictures with ONNX Runtime in WebAssembly, beside the page, so that the page stays quick. */

import { networkInput } from "./preprocess.js";
import * as ort from "./runtime/ort.wasm.min.mjs";

const MOST_THREADS = 4;
const TOP = 5;

ort.env.wasm.wasmPaths = new URL("runtime/", import.meta.url).href;
// Threads need shared memory, which a page has only where its host isolates it (COOP and COEP headers).
ort.env.wasm.numThreads = self.crossOriginIsolated ? Math.min(MOST_THREADS, navigator.hardwareConcurrency) : 1;

const ready = load();

async function load() {
  const [description, model] = await Promise.all([
    fetch("model.json").then((response) => response.json()),
    fetch("model.onnx").then((response) => response.arrayBuffer()),
  ]);
  const session = await ort.InferenceSession.create(new Uint8Array(model), { executionProviders: ["wasm"] });
  return { description, session };
}

/** One picture -> the most probable classes, and where the time went. */
async function classify(picture) {
  const { description, session } = await ready;
  const start = performance.now();
  const { data, shape } = await networkInput(picture, description.preprocessing);
  const between = performance.now();
  const results = await session.run({ [session.inputNames[0]]: new ort.Tensor("uint8", data, shape) });
  const end = performance.now();
  const probabilities = results[session.outputNames[0]].data;
  const answers = [...probabilities.keys()]
    .sort((a, b) => probabilities[b] - probabilities[a])
    .slice(0, TOP)
    .map((index) => ({ name: description.class_names[index], probability: probabilities[index] }));
  const [reading, network] = [between - start, end - between].map((time) => time.toFixed(1));
  return { answers, time: `${network} ms in the network, ${reading} ms to read and resize the picture, in this browser` };
}

let last = Promise.resolve(); // a session runs one picture at a time

self.onmessage = ({ data: { number, picture } }) => {
  last = last
    .then(() => classify(picture))
    .then((answer) => self.postMessage({ number, answer }))
    .catch((error) => self.postMessage({ number, error: error.message }));
};
