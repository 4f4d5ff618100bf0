/** Objects in the predictions of a detector, with the arithmetic of the Python package (`ghostnets.artefacts.boxes`). */

const MIN_SCORE = 0.3; // that an object exceeds
const MAX_IOU = 0.6; // with a higher-scoring box of the same class
const MAX_BOXES = 100;
const MAX_CANDIDATES = 1000;

/**
 * @param {Float32Array} predictions - (P, classes + 4 * bins): for each point of the levels, row by row, the logits of the
 *   classes, then those of the distances to the left, top, right and bottom side.
 * @param {{class_names: string[], strides: number[], bins: number, preprocessing: {image_size: number}}} description
 * @param {{width: number, height: number, inside: number[]}} image - its size, and its size in the input.
 * @returns {{class: string, score: number, box: number[]}[]} in descending order of the score, boxes in pixels of the image.
 */
export function findObjects(predictions, { class_names, strides, bins, preprocessing }, { width, height, inside }) {
  const values = class_names.length + 4 * bins;
  const scales = [width / inside[0], height / inside[1]];
  const candidates = [];
  for (const [index, point] of pointsOf(preprocessing.image_size, strides).entries()) {
    const row = predictions.subarray(index * values, (index + 1) * values);
    for (let label = 0; label < class_names.length; label++) {
      const score = 1 / (1 + Math.exp(-row[label]));
      if (score > MIN_SCORE) candidates.push({ point, row, label, score });
    }
  }
  candidates.sort((a, b) => b.score - a.score);
  candidates.length = Math.min(candidates.length, MAX_CANDIDATES);
  for (const one of candidates) {
    const box = boxOf(one.point, one.row.subarray(class_names.length), bins, preprocessing.image_size);
    one.box = box.map((side, index) => Math.min(side * scales[index % 2], index % 2 ? height : width));
  }
  return suppress(candidates).map(({ label, score, box }) => ({ class: class_names[label], score, box }));
}

/** The points of all levels: their place in the input and the stride of their level. */
function pointsOf(size, strides) {
  return strides.flatMap((stride) => {
    const side = Math.ceil(size / stride);
    return Array.from({ length: side * side }, (_, i) => ({ x: (i % side) * stride, y: Math.floor(i / side) * stride, stride }));
  });
}

/** The box of a point, clipped to the input: each distance is the mean of its distribution over the bins. */
function boxOf({ x, y, stride }, logits, bins, size) {
  const [left, top, right, bottom] = [0, 1, 2, 3].map((side) => {
    const own = logits.subarray(side * bins, (side + 1) * bins);
    const highest = Math.max(...own);
    let [sum, total] = [0, 0];
    own.forEach((logit, bin) => {
      const power = Math.exp(logit - highest);
      sum += power;
      total += bin * power;
    });
    return (total / sum) * stride;
  });
  return [x - left, y - top, x + right, y + bottom].map((side) => Math.min(Math.max(side, 0), size));
}

/** Keeps the candidates that overlap no higher-scoring one of their class too much. */
function suppress(candidates) {
  const kept = [];
  for (const one of candidates) {
    if (kept.length === MAX_BOXES) break;
    if (!kept.some((other) => other.label === one.label && iou(other.box, one.box) > MAX_IOU)) kept.push(one);
  }
  return kept;
}

function iou(first, second) {
  const sides = [0, 1].map((axis) => Math.min(first[axis + 2], second[axis + 2]) - Math.max(first[axis], second[axis]));
  const intersection = Math.max(0, sides[0]) * Math.max(0, sides[1]);
  const area = (box) => (box[2] - box[0]) * (box[3] - box[1]);
  const union = area(first) + area(second) - intersection;
  return union > 0 ? intersection / union : 0;
}
