/** Probabilities as bars. */

import { element, percent } from "./dom.js";

/** One bar of a track; `share` in [0, 1] of its whole length, blue for `kind` "ghost", orange for "". */
export function bar(share, kind) {
  const made = element("i", { className: kind });
  made.style.width = `${100 * Math.min(1, share)}%`;
  return made;
}

/**
 * A list entry: a name, its value as text, and one bar below the other.
 *
 * @param {string} name
 * @param {[number, string][]} shares - of each bar its share and its kind, as for `bar`.
 */
export function row(name, shares) {
  return element(
    "li",
    {},
    element("span", { className: "name", textContent: name }),
    element("span", { className: "value", textContent: shares.map(([share]) => percent(share)).join(" → ") }),
    element("span", { className: "track", "aria-hidden": "true" }, ...shares.map(([share, kind]) => bar(share, kind))),
  );
}

/** @param {{name: string, probability: number}[]} answers - the most probable first. */
export function bars(answers) {
  return element("ol", { className: "bars" }, ...answers.map((a) => row(a.name, [[a.probability, "ghost"]])));
}
