/** Ghost explorer: intrinsic maps and their ghosts, ablation of ghosts, cost by layer. */

import { bar, row } from "./bars.js";
import { byId, element, percent } from "./dom.js";
import { kernelCanvas, mapCanvas } from "./maps.js";
import { base64, call, post } from "./service.js";

const MAX_PAIRS = 24; // until the user asks for all
const TOP = 5;
const DEBOUNCE = 120; // milliseconds between the last click and the request

/**
 * @param {{name: string, intrinsic: number, ghosts: number, height: number, width: number}[]} modules - Ghost modules
 *   of GET v1/explain, at least one.
 * @returns {(image: File) => void} opens the explorer for an image.
 */
export function startExplorer(modules) {
  const modulesByName = new Map(modules.map((module) => [module.name, module]));
  const disabled = new Map(); // module name -> Set of ghost indices
  let image = null; // promise of the image as base64
  let imageUrl = "";
  let maps = null; // maps of the selected module
  let isShowingAll = false;
  const [select, list] = [byId("layer"), byId("pairs")];

  for (const { name, intrinsic, ghosts, height, width } of modules) {
    const text = `${name}: ${intrinsic} intrinsic maps of ${height} x ${width}, ${ghosts} ghosts`;
    select.append(element("option", { value: name, textContent: text }));
  }

  const fill = () => document.querySelector("input[name=fill]:checked").value;
  const countDisabled = () => [...disabled.values()].reduce((sum, ghosts) => sum + ghosts.size, 0);

  const loadMaps = latestOnly(async (signal) => {
    maps = await post("v1/explain/maps", { image: await image, layer: select.value }, signal);
    isShowingAll = false;
    drawPairs();
  });

  const loadAblation = latestOnly(async (signal) => {
    const off = Object.fromEntries([...disabled].map(([name, ghosts]) => [name, [...ghosts]]));
    const response = await post("v1/explain/without", { image: await image, off, fill: fill(), top: TOP }, signal);
    drawAblation(response, countDisabled());
  });

  let timer = 0;
  const update = () => {
    const ghosts = disabled.get(select.value);
    byId("enable-all").disabled = !countDisabled();
    byId("disable-module").disabled = ghosts?.size === modulesByName.get(select.value).ghosts;
    for (const button of list.querySelectorAll("button")) {
      button.setAttribute("aria-pressed", String(!ghosts?.has(Number(button.value))));
    }
    clearTimeout(timer);
    timer = setTimeout(loadAblation, DEBOUNCE);
  };

  const toggle = (ghost) => {
    const ghosts = disabled.get(select.value) ?? new Set();
    if (!ghosts.delete(ghost)) ghosts.add(ghost);
    if (ghosts.size) disabled.set(select.value, ghosts);
    else disabled.delete(select.value);
    update();
  };

  const drawPairs = () => {
    const { height, width, pairs } = maps;
    const pixels = Uint8Array.from(atob(maps.pixels), (character) => character.charCodeAt(0));
    const size = height * width;
    let offset = 0; // of each pair, the intrinsic map comes first, then its ghosts
    const nextCanvas = () => mapCanvas(pixels.subarray(offset, (offset += size)), width, height);
    const visible = isShowingAll ? pairs : pairs.slice(0, MAX_PAIRS);
    list.replaceChildren(...visible.map((pair) => newPair(pair, nextCanvas, toggle)));
    byId("pairs-title").textContent = `${maps.layer}: ${pairs.length} intrinsic maps and their ghosts`;
    byId("show-all").hidden = visible.length === pairs.length;
    byId("show-all").textContent = `Show all ${pairs.length} (now: the ${visible.length} with the highest variance)`;
    markCost(maps.layer);
    update();
  };

  select.onchange = () => loadMaps();
  byId("show-all").onclick = () => {
    isShowingAll = true;
    drawPairs();
    list.children[MAX_PAIRS].querySelector("button").focus();
  };
  byId("disable-module").onclick = () => {
    disabled.set(select.value, new Set(Array(modulesByName.get(select.value).ghosts).keys()));
    update();
  };
  byId("enable-all").onclick = () => {
    disabled.clear();
    update();
    byId("disable-module").focus(); // this button is disabled now
  };
  for (const choice of document.querySelectorAll("input[name=fill]")) choice.onchange = update;
  byId("cost").ontoggle = () => {
    if (byId("cost").open && !byId("cost-rows").children.length) loadCost();
  };
  const loadCost = latestOnly(async (signal) => {
    drawCost(await call("v1/explain/cost", { signal }));
    markCost(select.value);
  });

  return (file) => {
    byId("explorer").hidden = false;
    byId("explorer-title").textContent = `Ghosts of ${file.name}`;
    byId("explorer-title").focus({ preventScroll: true });
    const reducedMotion = matchMedia("(prefers-reduced-motion: reduce)").matches;
    byId("explorer").scrollIntoView({ behavior: reducedMotion ? "auto" : "smooth" });
    URL.revokeObjectURL(imageUrl);
    byId("explorer-image").src = imageUrl = URL.createObjectURL(file);
    image = base64(file);
    loadMaps();
  };
}

/** Wraps a task so that a later call aborts an earlier one; errors are shown in the explorer. */
function latestOnly(task) {
  let current = null;
  return async () => {
    current?.abort();
    const controller = (current = new AbortController());
    try {
      await task(controller.signal);
      byId("explorer-problem").textContent = "";
    } catch (error) {
      if (!controller.signal.aborted) byId("explorer-problem").textContent = error.message;
    }
  };
}

/** An intrinsic map with a toggle for each of its ghosts; `nextCanvas` draws the maps in order. */
function newPair(pair, nextCanvas, toggle) {
  const source = nextCanvas();
  source.setAttribute("role", "img");
  source.setAttribute("aria-label", `intrinsic map ${pair.intrinsic}`);
  source.className = "source";
  const item = element("li");
  for (const ghost of pair.ghosts) {
    const similarity = ghost.similarity === null ? "constant" : ghost.similarity.toFixed(2).replace("-", "−");
    const button = element(
      "button",
      {
        type: "button",
        value: ghost.number,
        "aria-label": `ghost ${ghost.number}, similarity ${similarity}, ${ghost.kind} kernel`,
        onclick: () => toggle(ghost.number),
      },
      nextCanvas(),
    );
    const first = ghost === pair.ghosts[0] ? source : element("span");
    item.append(
      element("div", { className: "pair" }, first, button),
      element("div", { className: "about" }, kernelCanvas(ghost.kernel), `${ghost.number}: ${similarity}, ${ghost.kind}`),
    );
  }
  if (!pair.ghosts.length) item.append(element("div", { className: "pair" }, source), "no ghost");
  return item;
}

function drawAblation({ answers }, numDisabled) {
  const best = (key) => answers.reduce((a, b) => (b[key] > a[key] ? b : a));
  const [before, after] = [best("before"), best("after")];
  const ghosts = numDisabled === 1 ? "1 ghost disabled" : `${numDisabled} ghosts disabled`;
  const effect = byId("effect");
  if (!numDisabled) {
    effect.textContent = `${before.class}, ${percent(before.before)}. All ghosts are enabled.`;
  } else if (before === after) {
    const change = `${percent(before.before)} → ${percent(before.after)}`;
    effect.textContent = `With ${ghosts} the prediction stays ${before.class}: ${change}.`;
  } else {
    effect.textContent = `With ${ghosts} the prediction changes from ${before.class} to ${after.class}.`;
  }
  effect.classList.toggle("changed", before !== after);

  const rows = answers.map((answer) => {
    const item = row(answer.class, [[answer.before, "ghost"], ...(numDisabled ? [[answer.after, ""]] : [])]);
    item.classList.toggle("changed", answer === after);
    return item;
  });
  byId("comparison").replaceChildren(...rows);
}

function drawCost({ note, layers }) {
  const total = (key) => layers.reduce((sum, layer) => sum + layer[key], 0);
  const [macs, seconds] = [total("macs"), total("seconds")];
  const largest = Math.max(...layers.flatMap((layer) => [layer.macs / macs, layer.seconds / seconds]));
  byId("cost-note").textContent = note;
  const rows = layers.map((layer) => {
    const shares = [layer.macs / macs, layer.seconds / seconds];
    const cells = [(layer.macs / 1e6).toFixed(2), ...shares.map(percent)];
    const item = element(
      "tr",
      {},
      element("th", { scope: "row", textContent: layer.title }),
      ...cells.map((textContent) => element("td", { textContent })),
      element("td", { className: "bar" }, bar(shares[0] / largest, "ghost"), bar(shares[1] / largest, "")),
    );
    item.dataset.layer = layer.name;
    return item;
  });
  byId("cost-rows").replaceChildren(...rows);
}

/** Marks the selected module's row. */
function markCost(name) {
  for (const item of byId("cost-rows").children) {
    if (item.dataset.layer === name) item.setAttribute("aria-current", "true");
    else item.removeAttribute("aria-current");
  }
}
