/** Bar charts of probabilities. */

import { element, percent } from "./dom.js";

/** A bar of a track; `share` in [0, 1] is its length, the color is blue for `kind` "ghost", orange for "". */
export function bar(share, kind) {
  const result = element("i", { className: kind });
  result.style.width = `${100 * Math.min(1, share)}%`;
  return result;
}

/**
 * A list item with a name, its values as text, and one bar per value.
 *
 * @param {string} name
 * @param {[number, string][]} shares - share and kind of each bar, as in `bar`.
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

/** @param {{name: string, probability: number}[]} predictions - in descending order of probability. */
export function bars(predictions) {
  return element("ol", { className: "bars" }, ...predictions.map((p) => row(p.name, [[p.probability, "ghost"]])));
}
