/** The class of each pixel of an image, with the arithmetic of the Python package (`ghostnets.artefacts.masks`). */

import { weightsOf } from "./preprocess.js";

/**
 * @param {Float32Array} logits - (classes, S, S).
 * @param {{class_names: string[], preprocessing: {image_size: number}}} description
 * @param {{width: number, height: number, inside: number[]}} image - its size, and its size in the input.
 * @returns {Promise<{mask: string, classes: {class: string, index: number, share: number, color: string}[]}>} PNG of the
 *   colours of the classes in base64; the classes that occur, the largest first.
 */
export async function findMask(logits, { class_names, preprocessing }, { width, height, inside }) {
  const probabilities = softmax(logits, class_names.length);
  const labels = resizeAndChoose(probabilities, class_names.length, preprocessing.image_size, inside, width, height);
  const counts = new Array(class_names.length).fill(0);
  for (const label of labels) counts[label]++;
  const classes = [...counts.keys()]
    .filter((index) => counts[index])
    .sort((a, b) => counts[b] - counts[a])
    .map((index) => ({ class: class_names[index], index, share: counts[index] / labels.length, color: hex(index) }));
  return { mask: await encode(labels, width, height, class_names.length), classes };
}

/** Softmax over the classes of each pixel. */
function softmax(logits, classes) {
  const pixels = logits.length / classes;
  const probabilities = new Float32Array(logits.length);
  for (let i = 0; i < pixels; i++) {
    let [highest, sum] = [-Infinity, 0];
    for (let c = 0; c < classes; c++) highest = Math.max(highest, logits[c * pixels + i]);
    for (let c = 0; c < classes; c++) sum += probabilities[c * pixels + i] = Math.exp(logits[c * pixels + i] - highest);
    for (let c = 0; c < classes; c++) probabilities[c * pixels + i] /= sum;
  }
  return probabilities;
}

/** Resizes the probabilities of each class to the image, and returns the class with the highest of each pixel. */
function resizeAndChoose(probabilities, classes, size, [columns, rows], width, height) {
  const [across, down] = [weightsOf(columns, width, 0, width), weightsOf(rows, height, 0, height)];
  const wide = new Float32Array(classes * rows * width); // resized horizontally
  for (let c = 0; c < classes; c++) {
    for (let y = 0; y < rows; y++) {
      for (let x = 0; x < width; x++) {
        const { first, weights } = across[x];
        let sum = 0;
        for (let k = 0, at = (c * size + y) * size + first; k < weights.length; k++) sum += probabilities[at + k] * weights[k];
        wide[(c * rows + y) * width + x] = sum;
      }
    }
  }
  const labels = new Uint8Array(width * height);
  for (let y = 0; y < height; y++) {
    const { first, weights } = down[y];
    for (let x = 0; x < width; x++) {
      let highest = -Infinity;
      for (let c = 0; c < classes; c++) {
        let sum = 0;
        for (let k = 0, at = (c * rows + first) * width + x; k < weights.length; k++, at += width) sum += wide[at] * weights[k];
        if (Math.fround(sum) > highest) [highest, labels[y * width + x]] = [Math.fround(sum), c];
      }
    }
  }
  return labels;
}

/** PNG of the colours of the classes, in base64. */
async function encode(labels, width, height, classes) {
  const canvas = new OffscreenCanvas(width, height);
  const context = canvas.getContext("2d");
  const image = context.createImageData(width, height);
  const colors = Array.from({ length: classes }, (_, label) => [...classColor(label), 255]);
  labels.forEach((label, index) => image.data.set(colors[label], 4 * index));
  context.putImageData(image, 0, 0);
  const bytes = new Uint8Array(await (await canvas.convertToBlob({ type: "image/png" })).arrayBuffer());
  let text = "";
  for (let start = 0; start < bytes.length; start += 0x8000) text += String.fromCharCode(...bytes.subarray(start, start + 0x8000));
  return btoa(text);
}

/** Red, green and blue of a class: the colour map of Pascal VOC without its first entry, black. */
function classColor(label) {
  const color = [0, 0, 0];
  for (let number = label + 1, bit = 7; bit >= 0; bit--, number >>= 3) {
    for (let channel = 0; channel < 3; channel++) color[channel] |= ((number >> channel) & 1) << bit;
  }
  return color;
}

const hex = (label) => `#${classColor(label).map((value) => value.toString(16).padStart(2, "0")).join("")}`;
