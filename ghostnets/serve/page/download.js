/** Files of the predictions on the page, in the formats of `ghostnets predict`. */

const FORMULA_STARTS = /^[=+\-@＝＋－＠\t\r\n]/; // of a cell that a spreadsheet executes
// Control characters, and those that change the direction of text.
const CONTROLS = /[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069]/g;

/**
 * @typedef {{name: string, probability: number}} Prediction
 * @typedef {{path: string, predictions: Prediction[], found?: object, error: string | null}} Row - predictions in
 *   descending order of probability, none with an error; `found` are the size and the objects of a detector,
 *   or the size, mask and classes of a segmentation network, instead.
 */

/** One object per image, as `ghostnets predict --json`. */
export function toJson(rows) {
  const objects = rows.map(({ path, predictions, found, error }) => {
    if (found?.mask) return { path, size: [found.width, found.height], shares: sharesOf(found), error };
    if (found) return { path, width: found.width, height: found.height, objects: found.objects, error };
    return { path, answers: predictions.map(({ name, probability }) => ({ class: name, probability })), error };
  });
  return `${JSON.stringify(objects, null, 2)}\n`;
}

/** One row per image, as `ghostnets predict --out FILE.csv --bom`; the mark lets Excel recognise UTF-8. */
export function toCsv(rows) {
  if (rows.some((row) => row.found?.mask)) return sharesToCsv(rows);
  return rows.some((row) => row.found) ? objectsToCsv(rows) : classesToCsv(rows);
}

const sharesOf = ({ classes }) => Object.fromEntries(classes.map((row) => [row.class, row.share]));

/** One row per image, with the share of its pixels of each class that occurs on the page. */
function sharesToCsv(rows) {
  const names = [...new Set(rows.flatMap(({ found }) => found?.classes.map((row) => row.class) ?? []))];
  const lines = rows.map(({ path, found, error }) => {
    const shares = found ? sharesOf(found) : {};
    const cells = names.map((name) => (found ? (shares[name] ?? 0).toFixed(6) : ""));
    return [cell(path), found?.width ?? "", found?.height ?? "", ...cells, cell(error ?? "")];
  });
  return joined([["path", "width", "height", ...names.map(cell), "error"], ...lines]);
}

function classesToCsv(rows) {
  const top = Math.max(0, ...rows.map((row) => row.predictions.length));
  const header = ["path"];
  for (let rank = 1; rank <= top; rank++) header.push(`class_${rank}`, `probability_${rank}`);
  const lines = rows.map(({ path, predictions, error }) => {
    const cells = predictions.flatMap(({ name, probability }) => [cell(name), probability.toFixed(6)]);
    return [cell(path), ...cells, ...Array(2 * top - cells.length).fill(""), cell(error ?? "")];
  });
  return joined([[...header, "error"], ...lines]);
}

/** One row per object, and one without an object for an image in which nothing was found or that cannot be read. */
function objectsToCsv(rows) {
  const header = ["path", "width", "height", "class", "score", "x_min", "y_min", "x_max", "y_max", "error"];
  const lines = rows.flatMap(({ path, found, error }) => {
    const size = found ? [found.width, found.height] : ["", ""];
    if (!found?.objects.length) return [[cell(path), ...size, ...Array(6).fill(""), cell(error ?? "")]];
    return found.objects.map(({ class: name, score, box }) => [
      ...[cell(path), ...size, cell(name), score.toFixed(6)],
      ...[...box.map((side) => side.toFixed(6)), ""],
    ]);
  });
  return joined([header, ...lines]);
}

/** The text of a file; the mark lets Excel recognise UTF-8. */
const joined = (lines) => `\ufeff${lines.map((line) => `${line.join(",")}\n`).join("")}`;

/** Lets the user save a text as a file. */
export function save(name, type, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000); // after the browser has opened it
}

/** Text that a spreadsheet would execute is preceded by an apostrophe, and control characters are escaped. */
function cell(text) {
  const code = (character) => character.charCodeAt(0).toString(16);
  const escape = (character) =>
    ({ "\r": "\\r", "\t": "\\t" })[character] ??
    (character < "\u0100" ? `\\x${code(character).padStart(2, "0")}` : `\\u${code(character).padStart(4, "0")}`);
  const safe = (FORMULA_STARTS.test(text) ? "'" : "") + text.replace(CONTROLS, escape);
  return /[",\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}
