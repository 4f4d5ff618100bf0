/** Entry point of the service's page: predictions of the service, and the ghost explorer for checkpoints. */

import { startApp } from "./app.js";
import { byId } from "./dom.js";
import { startExplorer } from "./explorer.js";
import { call } from "./service.js";

const TOP = 5;

const model = call("v1/model");
model.catch(() => {}); // shown by connect, and by each image

/** Sends the image file unchanged, with its name, which errors then give; see `startApp`. */
async function classify(image) {
  const start = performance.now();
  const body = new FormData();
  body.append("images", image, image.name);
  const { task } = await model;
  const { images } = await call(task === "classify" ? `v1/predict?top=${TOP}` : "v1/predict", { method: "POST", body });
  const time = `${(performance.now() - start).toFixed(0)} ms including the network round trip`;
  if (task !== "classify") return { predictions: [], found: images[0], time };
  const predictions = images[0].answers.map((answer) => ({ name: answer.class, probability: answer.probability }));
  return { predictions, time };
}

/** Shows the loaded model; returns the explorer, or null with a reason on the page. */
async function connect() {
  const { architecture, runtime, class_names } = await model;
  byId("model").textContent = `${architecture}, ${class_names.length.toLocaleString("en")} classes, ${runtime}.`;
  const { layers, absent } = await call("v1/explain");
  byId("no-explorer").textContent = absent ?? "";
  byId("no-explorer").hidden = !absent;
  return absent ? null : startExplorer(layers);
}

const explorer = connect().catch((error) => {
  byId("model").textContent = error.message;
  return null;
});
startApp({ classify, explorer });
