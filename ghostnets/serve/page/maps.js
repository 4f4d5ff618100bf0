/** Feature maps and kernels as pictures. */

import { element } from "./dom.js";

// Matplotlib's viridis at 16 equal steps, dark to bright, as in the project's reports.
const VIRIDIS =
  "440154 481a6c 472f7d 414487 39568c 31688e 2a788e 23888e 1f988b 22a884 35b779 54c568 7ad151 a5db36 d2e21b fde725"
    .split(" ")
    .map((hex) => [0, 2, 4].map((at) => parseInt(hex.slice(at, at + 2), 16)));

/** 256 colours, RGB in a row. */
const COLORS = Uint8Array.from({ length: 768 }, (_, index) => {
  const place = (Math.floor(index / 3) / 255) * (VIRIDIS.length - 1);
  const below = Math.min(Math.floor(place), VIRIDIS.length - 2);
  const [a, b] = [VIRIDIS[below][index % 3], VIRIDIS[below + 1][index % 3]];
  return Math.round(a + (b - a) * (place - below));
});

/** A canvas of `width` x `height` pixels; `color(i)` gives [r, g, b] of pixel i, row by row. */
function drawn(width, height, color) {
  const canvas = element("canvas", { width, height });
  const image = new ImageData(width, height);
  for (let i = 0; i < width * height; i++) image.data.set([...color(i), 255], 4 * i);
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}

/** A map, uint8 row by row, 0 for its lowest value and 255 for its highest. */
export function mapCanvas(values, width, height) {
  return drawn(width, height, (i) => COLORS.subarray(3 * values[i], 3 * values[i] + 3));
}

/** A kernel, row by row: blue weights are positive, orange ones negative, as strong as their share of the largest. */
export function kernelCanvas(weights) {
  const side = Math.sqrt(weights.length);
  const most = Math.max(...weights.map(Math.abs)) || 1;
  return drawn(side, side, (i) => {
    const ink = weights[i] >= 0 ? [47, 129, 196] : [224, 122, 47];
    const share = Math.abs(weights[i]) / most;
    return ink.map((value) => Math.round(246 + (value - 246) * share));
  });
}
