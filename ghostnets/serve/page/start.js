/** The page of the HTTP service: it answers, and a checkpoint that it serves may be looked into. */

import { startApp } from "./app.js";
import { byId } from "./dom.js";
import { startExplorer } from "./explorer.js";
import { call } from "./service.js";

const TOP = 5;

/** One picture to the service, the file as it is. */
async function classify(picture) {
  const start = performance.now();
  const headers = { "Content-Type": "application/octet-stream" };
  const { images } = await call(`v1/predict?top=${TOP}`, { method: "POST", headers, body: picture });
  const answers = images[0].answers.map((answer) => ({ name: answer.class, probability: answer.probability }));
  return { answers, time: `${(performance.now() - start).toFixed(0)} ms, with the way to the service and back` };
}

/** Says who answers; gives the explorer, or null and a sentence on the page. */
async function meet() {
  const { architecture, runtime, class_names } = await call("v1/model");
  byId("network").textContent = `${architecture}, ${class_names.length} classes, in ${runtime}.`;
  const outline = await call("v1/explain");
  byId("no-explorer").textContent = outline.absent ?? "";
  byId("no-explorer").hidden = !outline.absent;
  return outline.absent ? null : startExplorer(outline.layers);
}

const explorer = meet().catch((error) => {
  byId("network").textContent = error.message;
  return null;
});
startApp({ classify, explorer });
