/** Entry point of the service's page: classification by the service, and the ghost explorer for checkpoints. */

import { startApp } from "./app.js";
import { byId } from "./dom.js";
import { startExplorer } from "./explorer.js";
import { call } from "./service.js";

const TOP = 5;

/** Sends the image file unchanged, with its name, which errors then give; see `startApp`. */
async function classify(image) {
  const start = performance.now();
  const body = new FormData();
  body.append("images", image, image.name);
  const { images } = await call(`v1/predict?top=${TOP}`, { method: "POST", body });
  const predictions = images[0].answers.map((answer) => ({ name: answer.class, probability: answer.probability }));
  return { predictions, time: `${(performance.now() - start).toFixed(0)} ms including the network round trip` };
}

/** Shows the loaded model; returns the explorer, or null with a reason on the page. */
async function connect() {
  const { architecture, runtime, class_names } = await call("v1/model");
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
