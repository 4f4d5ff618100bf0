/** The exported page: the network runs in this browser, and after the first visit without a connection as well. */

import { startApp } from "./app.js";
import { byId } from "./dom.js";

async function start() {
  const description = await (await fetch("model.json")).json();
  const named = `${description.architecture}, ${description.class_names.length} classes`;
  const say = (text) => (byId("network").textContent = `${named}. ${text}`);
  say("It runs in this browser; pictures do not leave it.");
  byId("no-explorer").textContent =
    "The ghost explorer needs the network in PyTorch, which this page does not have; it is in: ghostnets serve CHECKPOINT.";
  byId("no-explorer").hidden = false;
  startApp({ classify: classifierInWorker(), explorer: Promise.resolve(null) });
  if (navigator.serviceWorker) {
    await navigator.serviceWorker.register("service_worker.js");
    await navigator.serviceWorker.ready;
    say("It runs in this browser; pictures do not leave it. All is kept: the page works offline now.");
  }
}

/** `classify` of startApp, done by worker.js. */
function classifierInWorker() {
  const worker = new Worker("worker.js", { type: "module" });
  const waiting = new Map(); // number of the question -> what to do with the answer
  let number = 0;
  const failed = (message) => {
    for (const { reject } of waiting.values()) reject(new Error(message));
    waiting.clear();
  };
  worker.onerror = () => failed("The network cannot be started in this browser; try a current one.");
  worker.onmessage = ({ data }) => {
    const { resolve, reject } = waiting.get(data.number);
    waiting.delete(data.number);
    if (data.error) reject(new Error(data.error));
    else resolve(data.answer);
  };
  return (picture) =>
    new Promise((resolve, reject) => {
      waiting.set(++number, { resolve, reject });
      worker.postMessage({ number, picture });
    });
}

start().catch((error) => (byId("network").textContent = `The page cannot start: ${error.message}`));
