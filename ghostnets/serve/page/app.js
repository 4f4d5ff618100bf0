/** Pictures in, answers out: the part that the service's page and the exported page share. */

import { bars } from "./bars.js";
import { byId, element, percent } from "./dom.js";
import { watchPictures } from "./intake.js";

const AT_ONCE = 4; // pictures on their way
const MOST = 200; // pictures shown; older ones go

/**
 * @typedef {{name: string, probability: number}} Answer
 * @typedef {{answers: Answer[], time: string}} Classified - the most probable first; `time` is a sentence.
 *
 * @param {object} parts
 * @param {(picture: File) => Promise<Classified>} parts.classify - rejects with a sentence for the person.
 * @param {Promise<((picture: File) => void) | null>} parts.explorer - what the button "Ghosts" does; none for null.
 */
export function startApp({ classify, explorer }) {
  const [list, status] = [byId("answers"), byId("status")];
  const waiting = [];
  let running = 0;

  const next = async () => {
    if (running >= AT_ONCE || !waiting.length) return;
    running++;
    const { picture, card } = waiting.shift();
    if (card.isConnected) await answer(picture, card); // it may have been removed meanwhile
    running--;
    next();
  };

  const answer = async (picture, card) => {
    const place = card.querySelector(".place");
    try {
      const { answers, time } = await classify(picture);
      place.replaceChildren(bars(answers), element("p", { className: "soft time", textContent: time }));
      status.textContent = `${picture.name}: ${answers[0].name}, ${percent(answers[0].probability)}`;
      explorer.then((explore) => explore && addExplore(card, picture, explore));
    } catch (error) {
      place.replaceChildren(element("p", { className: "bad", textContent: error.message }));
      status.textContent = `${picture.name}: ${error.message}`;
    }
    card.removeAttribute("aria-busy");
  };

  watchPictures((pictures) => {
    byId("answers-section").hidden = false;
    const cards = pictures.map(newCard);
    list.prepend(...cards);
    while (list.children.length > MOST) list.lastElementChild.remove();
    cards.forEach((card, index) => {
      waiting.push({ picture: pictures[index], card });
      next();
    });
  });
}

/** The button that opens the explorer, before the other one. */
function addExplore(card, picture, explore) {
  const button = element("button", {
    type: "button",
    className: "explore",
    textContent: "Ghosts",
    "aria-label": `Ghosts of ${picture.name}`,
    onclick: () => explore(picture),
  });
  card.querySelector(".buttons").prepend(button);
}

function newCard(picture) {
  const shown = element("img", { className: "shown", alt: "" }); // its name stands beside it
  const address = URL.createObjectURL(picture);
  shown.onload = () => URL.revokeObjectURL(address);
  shown.onerror = () => {
    URL.revokeObjectURL(address);
    shown.replaceWith(element("span", { className: "shown none", textContent: "no preview" }));
  };
  shown.src = address;
  const buttons = element("p", { className: "buttons" });
  const remove = element("button", { type: "button", textContent: "Remove", "aria-label": `Remove ${picture.name}` });
  const card = element(
    "li",
    { className: "picture", "aria-busy": "true" },
    shown,
    element(
      "div",
      {},
      element("h3", { textContent: picture.name }),
      element("div", { className: "place" }, element("p", { className: "soft", textContent: "Being looked at." })),
      buttons,
    ),
  );
  remove.onclick = () => {
    const neighbour = card.nextElementSibling ?? card.previousElementSibling;
    card.remove();
    (neighbour?.querySelector("button:last-child") ?? byId("choose")).focus();
    byId("answers-section").hidden = !byId("answers").children.length;
  };
  buttons.append(remove);
  return card;
}
