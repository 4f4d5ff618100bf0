/** Draws feature maps and kernels. */

import { element } from "./dom.js";

// Matplotlib's viridis at 16 equal steps, dark to bright, as in the project's reports.
const VIRIDIS =
  "440154 481a6c 472f7d 414487 39568c 31688e 2a788e 23888e 1f988b 22a884 35b779 54c568 7ad151 a5db36 d2e21b fde725"
    .split(" ")
    .map((hex) => [0, 2, 4].map((start) => parseInt(hex.slice(start, start + 2), 16)));

/** Colormap of 256 RGB colors, interleaved. */
const COLORMAP = Uint8Array.from({ length: 768 }, (_, index) => {
  const position = (Math.floor(index / 3) / 255) * (VIRIDIS.length - 1);
  const lower = Math.min(Math.floor(position), VIRIDIS.length - 2);
  const [a, b] = [VIRIDIS[lower][index % 3], VIRIDIS[lower + 1][index % 3]];
  return Math.round(a + (b - a) * (position - lower));
});

/** A canvas of `width` x `height` pixels; `color(i)` returns [r, g, b] of pixel i in row-major order. */
function newCanvas(width, height, color) {
  const canvas = element("canvas", { width, height });
  const image = new ImageData(width, height);
  for (let i = 0; i < width * height; i++) image.data.set([...color(i), 255], 4 * i);
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

/** Draws a map given as uint8 in row-major order, 0 for its minimum and 255 for its maximum. */
export function mapCanvas(values, width, height) {
  return newCanvas(width, height, (i) => COLORMAP.subarray(3 * values[i], 3 * values[i] + 3));
}

/** Draws a kernel in row-major order: positive weights blue, negative ones orange, relative to the largest magnitude. */
export function kernelCanvas(weights) {
  const side = Math.sqrt(weights.length);
  const largest = Math.max(...weights.map(Math.abs)) || 1;
  return newCanvas(side, side, (i) => {
    const ink = weights[i] >= 0 ? [47, 129, 196] : [224, 122, 47];
    const share = Math.abs(weights[i]) / largest;
    return ink.map((value) => Math.round(246 + (value - 246) * share));
  });
}
