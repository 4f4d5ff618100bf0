/** Entry point of the static page: the network runs in the browser, after the first visit also offline. */

import { startApp } from "./app.js";
import { byId } from "./dom.js";

async function start() {
  const description = await (await fetch("model.json")).json();
  const model = `${description.architecture}, ${description.class_names.length.toLocaleString("en")} classes`;
  const show = (text) => (byId("model").textContent = `${model}. ${text}`);
  show("Runs in this browser; images do not leave it.");
  byId("no-explorer").textContent = description.task
    ? "The ghost explorer is for classifiers."
    : "The ghost explorer needs the network in PyTorch; it is part of: ghostnets serve CHECKPOINT.";
  byId("no-explorer").hidden = false;
  startApp({ classify: classifierInWorker(), explorer: Promise.resolve(null) });
  if (navigator.serviceWorker) {
    await navigator.serviceWorker.register("service_worker.js");
    await navigator.serviceWorker.ready;
    show("Runs in this browser; images do not leave it. The page now works offline.");
  }
}

/** `classify` of startApp, run by worker.js. */
function classifierInWorker() {
  const worker = new Worker("worker.js", { type: "module" });
  const pending = new Map(); // request id -> promise callbacks
  let lastId = 0;
  const failAll = (message) => {
    for (const { reject } of pending.values()) reject(new Error(message));
    pending.clear();
  };
  worker.onerror = () => failAll("The network cannot run in this browser; try a current one.");
  worker.onmessage = ({ data }) => {
    const { resolve, reject, name } = pending.get(data.id);
    pending.delete(data.id);
    if (data.error) reject(new Error(`${name}: ${data.error}`));
    else resolve(data.result);
  };
  return (image) =>
    new Promise((resolve, reject) => {
      pending.set(++lastId, { resolve, reject, name: image.name });
      worker.postMessage({ id: lastId, image });
    });
}

start().catch((error) => (byId("model").textContent = `The page cannot start: ${error.message}`));
