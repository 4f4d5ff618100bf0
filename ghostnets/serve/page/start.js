/** The page of the HTTP service: it answers, and its network may be looked into. */

import { startApp } from "./app.js";
import { byId } from "./dom.js";
import { startExplorer } from "./explorer.js";
import { call } from "./service.js";

/** One picture to the service, as it is. */
async function classify(picture) {
  const start = performance.now();
  const answer = await call("v1/predict", { method: "POST", body: picture });
  return answer; // adapted when the service is there
}

async function start() {
  const network = await call("v1/explain");
  byId("network").textContent = `${network.architecture}`;
  let explore = null;
  if (network.layers.length) explore = startExplorer(network);
  startApp({ classify, explore });
}

start().catch((error) => (byId("network").textContent = error.message));
