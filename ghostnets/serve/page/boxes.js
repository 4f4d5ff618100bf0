/** An image with the boxes of its objects. */

import { element, percent } from "./dom.js";

const SIDE = 960; // longer side of the picture in pixels
// Colours that stay distinct for colour-blind readers (Okabe and Ito), by class, and those with black text.
const COLORS = ["#0072b2", "#e69f00", "#009e73", "#d55e00", "#cc79a7", "#56b4e9", "#f0e442", "#000000"];
const LIGHT = ["#e69f00", "#56b4e9", "#f0e442"];

/**
 * @typedef {{class: string, score: number, box: number[]}} FoundObject - box: x_min, y_min, x_max, y_max in pixels.
 *
 * @param {File} image
 * @param {{width: number, height: number, objects: FoundObject[]}} found - size of the upright image, and its objects in
 *   descending order of the score.
 * @returns {Promise<HTMLCanvasElement | null>} the picture; null if the browser cannot decode the image.
 */
export async function drawBoxes(image, { width, height, objects }) {
  const bitmap = await createImageBitmap(image).catch(() => null);
  if (!bitmap) return null;
  const scale = Math.min(1, SIDE / Math.max(width, height));
  const canvas = element("canvas", { className: "picture", role: "img", "aria-label": describe(objects) });
  [canvas.width, canvas.height] = [Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale))];
  const context = canvas.getContext("2d");
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  const line = Math.max(2, Math.max(canvas.width, canvas.height) / 300);
  const size = Math.max(11, Math.max(canvas.width, canvas.height) / 45);
  context.font = `${size}px system-ui, sans-serif`;
  context.textBaseline = "top";
  const classes = [...new Set(objects.map((found) => found.class))];
  for (const found of [...objects].reverse()) drawBox(context, found, scale, line, size, color(classes, found.class));
  return canvas;
}

function drawBox(context, { class: name, score, box }, scale, line, size, fill) {
  const [left, top, right, bottom] = box.map((side) => side * scale);
  context.lineWidth = line;
  context.strokeStyle = context.fillStyle = fill;
  context.strokeRect(left, top, right - left, bottom - top);
  const text = `${name} ${percent(score)}`;
  const [width, height] = [context.measureText(text).width + 2 * line, size + 2 * line];
  const x = Math.max(0, Math.min(left, context.canvas.width - width));
  const y = top >= height ? top - height : top;
  context.fillRect(x, y, width, height);
  context.fillStyle = LIGHT.includes(fill) ? "#000" : "#fff";
  context.fillText(text, x + line, y + line);
}

const color = (classes, name) => COLORS[classes.indexOf(name) % COLORS.length];

/** "2 objects: fish, shark", the classes in the order of their highest score; "no object". */
export function describe(objects) {
  if (!objects.length) return "no object";
  const names = [...new Set(objects.map((found) => found.class))].join(", ");
  return `${objects.length} ${objects.length === 1 ? "object" : "objects"}: ${names}`;
}
