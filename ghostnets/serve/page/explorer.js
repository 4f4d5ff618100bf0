/** The ghost explorer: intrinsic maps beside their ghosts, ghosts switched off, and what each layer costs. */

import { bar, row } from "./bars.js";
import { byId, element, percent } from "./dom.js";
import { kernelCanvas, mapCanvas } from "./maps.js";
import { base64, call, post } from "./service.js";

const SHOWN = 24; // pairs, until more are asked for
const CLASSES = 5; // compared
const PAUSE = 120; // milliseconds between the last switch and the question

/**
 * @param {{name: string, intrinsic: number, ghosts: number, height: number, width: number}[]} modules - the Ghost
 *   modules of GET v1/explain, at least one.
 * @returns {(picture: File) => void} opens the explorer on a picture.
 */
export function startExplorer(modules) {
  const layers = new Map(modules.map((layer) => [layer.name, layer]));
  const off = new Map(); // name of a layer -> Set of the numbers of its ghosts that are off
  let image = null; // the promise of the picture as base64
  let address = "";
  let maps = null; // of the layer that is shown
  let isEverythingShown = false;
  const [select, list] = [byId("layer"), byId("pairs")];

  for (const { name, intrinsic, ghosts, height, width } of modules) {
    const text = `${name}: ${intrinsic} intrinsic maps of ${height} x ${width}, ${ghosts} ghosts`;
    select.append(element("option", { value: name, textContent: text }));
  }

  const fill = () => document.querySelector("input[name=fill]:checked").value;
  const count = () => [...off.values()].reduce((sum, ghosts) => sum + ghosts.size, 0);

  const showMaps = lastOnly(async (signal) => {
    maps = await post("v1/explain/maps", { image: await image, layer: select.value }, signal);
    isEverythingShown = false;
    drawPairs();
  });

  const showEffect = lastOnly(async (signal) => {
    const wanted = Object.fromEntries([...off].map(([layer, ghosts]) => [layer, [...ghosts]]));
    const question = { image: await image, off: wanted, fill: fill(), top: CLASSES };
    const answer = await post("v1/explain/without", question, signal);
    drawEffect(answer, count());
  });

  let pause = 0;
  const changed = () => {
    byId("every-on").disabled = !count();
    const isWholeOff = off.get(select.value)?.size === layers.get(select.value).ghosts;
    byId("layer-off").disabled = isWholeOff;
    for (const button of list.querySelectorAll("button")) {
      button.setAttribute("aria-pressed", String(!off.get(select.value)?.has(Number(button.value))));
    }
    clearTimeout(pause);
    pause = setTimeout(showEffect, PAUSE);
  };

  const flip = (ghost) => {
    const here = off.get(select.value) ?? new Set();
    if (!here.delete(ghost)) here.add(ghost);
    if (here.size) off.set(select.value, here);
    else off.delete(select.value);
    changed();
  };

  const drawPairs = () => {
    const { height, width, pairs } = maps;
    const pixels = Uint8Array.from(atob(maps.pixels), (letter) => letter.charCodeAt(0));
    const size = height * width;
    let at = 0; // the maps of each pair follow one another: the intrinsic one, then its ghosts
    const next = () => mapCanvas(pixels.subarray(at, (at += size)), width, height);
    const shown = isEverythingShown ? pairs : pairs.slice(0, SHOWN);
    list.replaceChildren(...shown.map((pair) => newPair(pair, next, flip)));
    byId("pairs-title").textContent = `${maps.layer}: ${pairs.length} intrinsic maps, each with what is made from it`;
    byId("more").hidden = shown.length === pairs.length;
    byId("more").textContent = `Show all ${pairs.length}; these vary most`;
    markCost(maps.layer);
    changed();
  };

  select.onchange = () => showMaps();
  byId("more").onclick = () => {
    isEverythingShown = true;
    drawPairs();
    list.children[SHOWN].querySelector("button").focus();
  };
  byId("layer-off").onclick = () => {
    off.set(select.value, new Set(Array(layers.get(select.value).ghosts).keys()));
    changed();
  };
  byId("every-on").onclick = () => {
    off.clear();
    changed();
    byId("layer-off").focus(); // this button is disabled now
  };
  for (const choice of document.querySelectorAll("input[name=fill]")) choice.onchange = changed;
  byId("cost").ontoggle = () => {
    if (byId("cost").open && !byId("cost-rows").children.length) showCost();
  };
  const showCost = lastOnly(async (signal) => {
    drawCost(await call("v1/explain/cost", { signal }));
    markCost(select.value);
  });

  return (picture) => {
    byId("explorer").hidden = false;
    byId("explorer-title").textContent = `Ghosts of ${picture.name}`;
    byId("explorer-title").focus({ preventScroll: true });
    const isCalm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    byId("explorer").scrollIntoView({ behavior: isCalm ? "auto" : "smooth" });
    URL.revokeObjectURL(address);
    byId("explorer-picture").src = address = URL.createObjectURL(picture);
    image = base64(picture);
    showMaps();
  };
}

/** Wraps a task so that a later call stops an earlier one; what goes wrong is told in the explorer. */
function lastOnly(task) {
  let running = null;
  return async () => {
    running?.abort();
    const mine = (running = new AbortController());
    try {
      await task(mine.signal);
      byId("explorer-problem").textContent = "";
    } catch (error) {
      if (!mine.signal.aborted) byId("explorer-problem").textContent = error.message;
    }
  };
}

/** One intrinsic map, and a switch for each of its ghosts; `next` draws one map after the other. */
function newPair(pair, next, flip) {
  const source = next();
  const label = (kind, number) => `${kind} ${number}`;
  source.setAttribute("role", "img");
  source.setAttribute("aria-label", label("intrinsic map", pair.intrinsic));
  source.className = "source";
  const entry = element("li");
  for (const ghost of pair.ghosts) {
    const similarity = ghost.similarity === null ? "constant" : ghost.similarity.toFixed(2).replace("-", "−");
    const button = element(
      "button",
      {
        type: "button",
        value: ghost.number,
        "aria-label": `${label("ghost", ghost.number)}, similarity ${similarity}, ${ghost.kind} kernel`,
        onclick: () => flip(ghost.number),
      },
      next(),
    );
    const first = ghost === pair.ghosts[0] ? source : element("span");
    entry.append(
      element("div", { className: "pair" }, first, button),
      element("div", { className: "about" }, kernelCanvas(ghost.kernel), `${ghost.number}: ${similarity}, ${ghost.kind}`),
    );
  }
  if (!pair.ghosts.length) entry.append(element("div", { className: "pair" }, source), "no ghost");
  return entry;
}

function drawEffect({ answers }, count) {
  const best = (key) => answers.reduce((a, b) => (b[key] > a[key] ? b : a));
  const [was, is] = [best("before"), best("after")];
  const ghosts = count === 1 ? "1 ghost off" : `${count} ghosts off`;
  const effect = byId("effect");
  if (!count) effect.textContent = `${was.class}, ${percent(was.before)}. Every ghost is on.`;
  else if (was === is) {
    effect.textContent = `With ${ghosts} it stays ${was.class}: ${percent(was.before)} → ${percent(was.after)}.`;
  } else effect.textContent = `With ${ghosts} the answer changes from ${was.class} to ${is.class}.`;
  effect.classList.toggle("changed", was !== is);

  const rows = answers.map((answer) => {
    const made = row(answer.class, [[answer.before, "ghost"], ...(count ? [[answer.after, ""]] : [])]);
    made.classList.toggle("changed", answer === is);
    return made;
  });
  byId("comparison").replaceChildren(...rows);
}

function drawCost({ note, layers }) {
  const total = (key) => layers.reduce((sum, layer) => sum + layer[key], 0);
  const [macs, seconds] = [total("macs"), total("seconds")];
  const longest = Math.max(...layers.flatMap((layer) => [layer.macs / macs, layer.seconds / seconds]));
  byId("cost-note").textContent = note;
  const rows = layers.map((layer) => {
    const shares = [layer.macs / macs, layer.seconds / seconds];
    const cells = [(layer.macs / 1e6).toFixed(2), ...shares.map(percent)];
    const made = element(
      "tr",
      {},
      element("th", { scope: "row", textContent: layer.title }),
      ...cells.map((textContent) => element("td", { textContent })),
      element("td", { className: "bar" }, bar(shares[0] / longest, "ghost"), bar(shares[1] / longest, "")),
    );
    made.dataset.layer = layer.name;
    return made;
  });
  byId("cost-rows").replaceChildren(...rows);
}

/** Marks the row of the layer that is shown. */
function markCost(name) {
  for (const made of byId("cost-rows").children) {
    if (made.dataset.layer === name) made.setAttribute("aria-current", "true");
    else made.removeAttribute("aria-current");
  }
}
