/**
 * A picture -> the network's input, with the arithmetic of the Python side: the shorter side resized by Pillow's
 * antialiased filters, in whole numbers as there, and the centre cut out. What may differ is the decoder of the browser,
 * and a byte by 1 where Pillow resizes the columns of a picture before its rows.
 */

const MOST_ELONGATED = 4; // longer side : shorter side; a longer picture is cut to its middle first
const MOST_PIXELS = 100_000_000;
const PRECISION = 22; // bits behind the point of a filter's weights
const BAND = 256; // rows that are read at one time

/** Each filter: how far it reaches, in pixels of the smaller picture, and its weight at a distance. */
const FILTERS = {
  bilinear: { reach: 1, weight: (x) => Math.max(0, 1 - Math.abs(x)) },
  bicubic: { reach: 2, weight: cubic },
};

/**
 * @param {Blob} picture - a file that the browser can decode.
 * @param {{image_size: number, resize_to: number, mean: number[], interpolation?: string}} preprocessing - as the
 *   checkpoint describes it.
 * @returns {Promise<{data: Uint8Array, shape: number[]}>} uint8 (1, S, S, C), upright, RGB or grey.
 * @throws {Error} with a sentence for the person.
 */
export async function networkInput(picture, { image_size: size, resize_to, mean, interpolation = "bilinear" }) {
  const bitmap = await decode(picture);
  try {
    const part = middle(bitmap.width, bitmap.height);
    const [width, height] = resized(part.width, part.height, resize_to);
    const filter = FILTERS[interpolation];
    const columns = taps(part.width, width, middleStart(width, size), size, filter);
    const rows = taps(part.height, height, middleStart(height, size), size, filter);
    const narrow = resizeRows(bitmap, part, columns, mean.length);
    return { data: resizeColumns(narrow, rows, size, mean.length), shape: [1, size, size, mean.length] };
  } finally {
    bitmap.close();
  }
}

async function decode(picture) {
  let bitmap;
  try {
    // Colours as they stand in the file, as Pillow gives them; upright as EXIF says.
    bitmap = await createImageBitmap(picture, { colorSpaceConversion: "none", imageOrientation: "from-image" });
  } catch (error) {
    throw new Error("This file cannot be read as a picture; it is damaged, or of a kind that this browser does not know.", {
      cause: error,
    });
  }
  if (bitmap.width * bitmap.height > MOST_PIXELS) {
    const millions = Math.round((bitmap.width * bitmap.height) / 1e6);
    bitmap.close();
    throw new Error(`The picture has ${millions} million pixels, the limit is ${MOST_PIXELS / 1e6} million; scale it down.`);
  }
  return bitmap;
}

/** The part of a picture that is used: all of it, or the middle of one that is more elongated than 4 : 1. */
function middle(width, height) {
  const most = MOST_ELONGATED * Math.min(width, height);
  return {
    left: Math.max(0, Math.floor((width - most) / 2)),
    top: Math.max(0, Math.floor((height - most) / 2)),
    width: Math.min(width, most),
    height: Math.min(height, most),
  };
}

/** Width and height with a shorter side of `shorter`; the longer one is rounded down. */
function resized(width, height, shorter) {
  const longer = Math.floor((shorter * Math.max(width, height)) / Math.min(width, height));
  return width <= height ? [shorter, longer] : [longer, shorter];
}

/** Where the middle `size` of `whole` begins; a half goes to the even number, as Python rounds. */
function middleStart(whole, size) {
  const start = (whole - size) / 2;
  const below = Math.floor(start);
  return start - below === 0.5 ? below + (below % 2) : Math.round(start);
}

/**
 * Of outputs `start` to `start + number` of `before` pixels that become `after`: the first pixel that each is made from,
 * and the weights of it and of those behind it.
 */
function taps(before, after, start, number, { reach, weight }) {
  const scale = before / after;
  const stretch = Math.max(scale, 1); // antialias: the filter is as wide as a new pixel
  return Array.from({ length: number }, (_, index) => {
    const center = (start + index + 0.5) * scale;
    const first = Math.max(0, Math.trunc(center - reach * stretch + 0.5));
    const end = Math.min(before, Math.trunc(center + reach * stretch + 0.5));
    const weights = Array.from({ length: end - first }, (_, x) => weight((first + x - center + 0.5) / stretch));
    const sum = weights.reduce((total, value) => total + value, 0);
    return { first, weights: Int32Array.from(weights, (value) => Math.trunc(fixed(value / sum))) };
  });
}

const fixed = (value) => value * 2 ** PRECISION + (value < 0 ? -0.5 : 0.5);

/** A sum of pixels times fixed-point weights -> a pixel; the array that it is put into cuts it to 0 to 255. */
const pixel = (sum) => (sum + 2 ** (PRECISION - 1)) >> PRECISION;

/** Every row of the part to `columns.length` pixels; transparent ones on white. */
function resizeRows(bitmap, part, columns, channels) {
  const [width, step] = [columns.length, columns.length * channels];
  const narrow = new Uint8ClampedArray(part.height * step);
  const canvas = new OffscreenCanvas(part.width, Math.min(BAND, part.height));
  const context = canvas.getContext("2d", { willReadFrequently: true });
  for (let top = 0; top < part.height; top += BAND) {
    const rows = Math.min(BAND, part.height - top);
    context.fillStyle = "white";
    context.fillRect(0, 0, part.width, rows);
    context.drawImage(bitmap, -part.left, -part.top - top);
    const { data } = context.getImageData(0, 0, part.width, rows);
    if (channels === 1) toGrey(data);
    for (let y = 0; y < rows; y++) {
      for (let x = 0; x < width; x++) {
        const { first, weights } = columns[x];
        for (let c = 0; c < channels; c++) {
          let sum = 0;
          for (let k = 0, at = 4 * (y * part.width + first) + c; k < weights.length; k++, at += 4) sum += data[at] * weights[k];
          narrow[(top + y) * step + x * channels + c] = pixel(sum);
        }
      }
    }
  }
  return narrow;
}

/** Rows of one width to `size` of them. */
function resizeColumns(narrow, rows, size, channels) {
  const step = size * channels;
  const data = new Uint8ClampedArray(size * step);
  rows.forEach(({ first, weights }, y) => {
    for (let x = 0; x < step; x++) {
      let sum = 0;
      for (let k = 0, at = first * step + x; k < weights.length; k++, at += step) sum += narrow[at] * weights[k];
      data[y * step + x] = pixel(sum);
    }
  });
  return new Uint8Array(data.buffer);
}

/** RGBA pixels: red becomes the luma of ITU-R 601-2, in the whole numbers of Pillow. */
function toGrey(data) {
  for (let i = 0; i < data.length; i += 4) {
    data[i] = (data[i] * 19595 + data[i + 1] * 38470 + data[i + 2] * 7471 + 0x8000) >> 16;
  }
}

/** Keys' cubic with a = -0.5. */
function cubic(x) {
  const [a, d] = [-0.5, Math.abs(x)];
  if (d < 1) return ((a + 2) * d - (a + 3)) * d * d + 1;
  return d < 2 ? (((d - 5) * d + 8) * d - 4) * a : 0;
}
