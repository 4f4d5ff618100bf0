/** An image with the colours of its classes over it. */

import { element, percent } from "./dom.js";

const SIDE = 960; // longer side of the picture in pixels
const OPACITY = 0.5; // of the mask over the image, as in `ghostnets predict --draw`

/**
 * @typedef {{class: string, index: number, share: number, color: string}} ClassShare
 *
 * @param {File} image
 * @param {{width: number, height: number, mask: string, classes: ClassShare[]}} found - size of the upright image; PNG of
 *   its mask in base64, whose palette has the colours; the classes that occur, the largest first.
 * @returns {Promise<HTMLCanvasElement | null>} the picture; null if the browser cannot decode the image.
 */
export async function drawMask(image, { width, height, mask, classes }) {
  const bytes = Uint8Array.from(atob(mask), (character) => character.charCodeAt(0));
  const files = [image, new Blob([bytes], { type: "image/png" })];
  const [bitmap, colors] = await Promise.all(files.map((file) => createImageBitmap(file).catch(() => null)));
  if (!bitmap || !colors) return null;
  const scale = Math.min(1, SIDE / Math.max(width, height));
  const canvas = element("canvas", { className: "picture", role: "img", "aria-label": describeShares(classes) });
  [canvas.width, canvas.height] = [Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale))];
  const context = canvas.getContext("2d");
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  context.globalAlpha = OPACITY;
  context.imageSmoothingEnabled = false; // between two classes is no third
  context.drawImage(colors, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  colors.close();
  return canvas;
}

/** A list of the classes with their colours and shares. */
export function legend(classes) {
  const rows = classes.map(({ class: name, share, color }) => {
    const swatch = element("span", { className: "swatch", "aria-hidden": "true" });
    swatch.style.backgroundColor = color;
    return element("li", {}, swatch, ` ${name} ${percent(share)}`);
  });
  return element("ul", { className: "legend" }, ...rows);
}

/** "land 61.0 %, water 39.0 %". */
export const describeShares = (classes) => classes.map((row) => `${row.class} ${percent(row.share)}`).join(", ");
