/** Page for classifiers, detectors and segmentation networks, shared by the service and the static export. */

import { bars } from "./bars.js";
import { describe, drawBoxes } from "./boxes.js";
import { byId, element, percent } from "./dom.js";
import { save, toCsv, toJson } from "./download.js";
import { watchImageSources } from "./image_sources.js";
import { describeShares, drawMask, legend } from "./masks.js";

const MAX_CONCURRENT = 4; // requests
const MAX_CARDS = 200; // older ones are removed

/**
 * @typedef {{name: string, probability: number}} Prediction
 * @typedef {{predictions: Prediction[], found?: object, time: string}} Classification - predictions in descending order
 *   of probability; `found` are the objects of a detector (`boxes.js`) or the mask of a segmentation network (`masks.js`)
 *   instead; `time` describes the latency.
 *
 * @param {object} parts
 * @param {(image: File) => Promise<Classification>} parts.classify - rejects with a message for the user.
 * @param {Promise<((image: File) => void) | null>} parts.explorer - opens the ghost explorer; null if there is none.
 */
export function startApp({ classify, explorer }) {
  const [list, status] = [byId("predictions"), byId("status")];
  const queue = [];
  const rows = new Map(); // card -> row of the downloads
  let running = 0;

  const next = async () => {
    if (running >= MAX_CONCURRENT || !queue.length) return;
    running++;
    const { image, card } = queue.shift();
    if (card.isConnected) await fill(card, image); // it may have been removed meanwhile
    running--;
    next();
  };

  const fill = async (card, image) => {
    const content = card.querySelector(".content");
    try {
      const { predictions, found, time } = await classify(image);
      rows.set(card, { path: image.name, predictions, found, error: null });
      content.replaceChildren(
        found ? await pictureOf(image, found) : bars(predictions),
        element("p", { className: "muted time", textContent: time }),
      );
      status.textContent = `${image.name}: ${summary(predictions, found)}`;
      card.classList.toggle("wide", Boolean(found));
      explorer.then((explore) => explore && addExploreButton(card, image, explore));
    } catch (error) {
      rows.set(card, { path: image.name, predictions: [], error: error.message });
      content.replaceChildren(element("p", { className: "error", textContent: error.message }));
      status.textContent = `${image.name}: ${error.message}`;
    }
    card.removeAttribute("aria-busy");
  };

  const finished = () => [...list.children].flatMap((card) => rows.get(card) ?? []); // in the order of the page
  byId("download-csv").onclick = () => save("predictions.csv", "text/csv", toCsv(finished()));
  byId("download-json").onclick = () => save("predictions.json", "application/json", toJson(finished()));
  byId("remove-all").onclick = () => {
    queue.length = 0;
    rows.clear();
    list.replaceChildren();
    byId("predictions-section").hidden = true;
    byId("choose").focus();
  };

  watchImageSources((images) => {
    byId("predictions-section").hidden = false;
    const cards = images.map(newCard);
    list.prepend(...cards);
    while (list.children.length > MAX_CARDS) list.lastElementChild.remove();
    for (const card of rows.keys()) if (!card.isConnected) rows.delete(card);
    cards.forEach((card, index) => {
      queue.push({ image: images[index], card });
      next();
    });
  });
}

/** One line on what was found. */
function summary([first], found) {
  if (found?.mask) return describeShares(found.classes);
  return found ? describe(found.objects) : `${first.name}, ${percent(first.probability)}`;
}

/** The picture with boxes and the objects with their scores, or with a mask and the shares of its classes. */
async function pictureOf(image, found) {
  const picture = await (found.mask ? drawMask : drawBoxes)(image, found);
  return element("div", {}, ...(picture ? [picture] : []), found.mask ? legend(found.classes) : scoresOf(found.objects));
}

function scoresOf(objects) {
  if (!objects.length) return element("p", { className: "muted", textContent: "Nothing found." });
  return bars(objects.map((one) => ({ name: one.class, probability: one.score })));
}

/** Inserts the button that opens the explorer before the other buttons. */
function addExploreButton(card, image, explore) {
  const button = element("button", {
    type: "button",
    className: "explore",
    textContent: "Ghosts",
    "aria-label": `Ghosts of ${image.name}`,
    onclick: () => explore(image),
  });
  card.querySelector(".buttons").prepend(button);
}

function newCard(image) {
  const preview = element("img", { className: "preview", alt: "" }); // the name is next to it
  const url = URL.createObjectURL(image);
  preview.onload = () => URL.revokeObjectURL(url);
  preview.onerror = () => {
    URL.revokeObjectURL(url);
    preview.replaceWith(element("span", { className: "preview none", textContent: "no preview" }));
  };
  preview.src = url;
  const buttons = element("p", { className: "buttons" });
  const remove = element("button", { type: "button", textContent: "Remove", "aria-label": `Remove ${image.name}` });
  const card = element(
    "li",
    { className: "card", "aria-busy": "true" },
    preview,
    element(
      "div",
      {},
      element("h3", { textContent: image.name }),
      element("div", { className: "content" }, element("p", { className: "muted", textContent: "Classifying…" })),
      buttons,
    ),
  );
  remove.onclick = () => {
    const neighbour = card.nextElementSibling ?? card.previousElementSibling;
    card.remove();
    (neighbour?.querySelector("button:last-child") ?? byId("choose")).focus();
    byId("predictions-section").hidden = !byId("predictions").children.length;
  };
  buttons.append(remove);
  return card;
}
