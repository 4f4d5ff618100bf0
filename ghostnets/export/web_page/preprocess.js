/**
 * Preprocessing with the arithmetic of the Python package: resize with Pillow's antialiased filters in fixed point, then
 * a centre crop or padding. Differences: the browser's image decoder, and values that differ by 1 where Pillow resizes
 * vertically before horizontally.
 */

const MAX_ASPECT_RATIO = 4; // longer side : shorter side; longer images are cropped first
const MAX_PIXELS = 100_000_000;
const PRECISION = 22; // fractional bits of the filter weights
const BAND_ROWS = 256; // rows read from the canvas at a time
const PADDING = 114; // grey of letterboxed images

/** Filters: support in pixels of the smaller image, and weight by distance. */
const FILTERS = {
  bilinear: { support: 1, weight: (x) => Math.max(0, 1 - Math.abs(x)) },
  bicubic: { support: 2, weight: cubic },
};

/**
 * @param {Blob} file - an image file that the browser can decode.
 * @param {{image_size: number, resize_to: number, mean: number[], interpolation?: string, fit?: string}} preprocessing -
 *   of the checkpoint.
 * @returns {Promise<{data: Uint8Array, shape: number[], width: number, height: number, inside: number[]}>} uint8
 *   (1, S, S, C), upright, RGB or grayscale; size of the upright image; width and height of the part of the square that
 *   shows it, from its upper left corner (all of it for a crop).
 * @throws {Error} with a message for the user.
 */
export async function preprocess(file, preprocessing) {
  const bitmap = await decode(file);
  try {
    const { width, height } = bitmap;
    const { image_size: size, mean } = preprocessing;
    const { crop, columns, rows } = planResize(width, height, preprocessing);
    const resizedRows = resizeHorizontally(bitmap, crop, columns, mean.length);
    const data = resizeVertically(resizedRows, rows, columns.length * mean.length);
    const inside = [columns.length, rows.length];
    return { data: pad(data, inside, size, mean.length), shape: [1, size, size, mean.length], width, height, inside };
  } finally {
    bitmap.close();
  }
}

/** The part of an image that is read, and the filter taps of the columns and rows that it is resized to. */
function planResize(width, height, { image_size: size, resize_to, interpolation = "bilinear", fit = "crop" }) {
  const filter = FILTERS[interpolation];
  if (fit === "crop") {
    const crop = cropElongated(width, height);
    const resized = resizedSize(crop.width, crop.height, resize_to);
    const columns = filterTaps(crop.width, resized[0], cropStart(resized[0], size), size, filter);
    return { crop, columns, rows: filterTaps(crop.height, resized[1], cropStart(resized[1], size), size, filter) };
  }
  const [columns, rows] = fit === "stretch" ? [size, size] : letterboxed(width, height, size);
  return {
    crop: { left: 0, top: 0, width, height },
    columns: filterTaps(width, columns, 0, columns, filter),
    rows: filterTaps(height, rows, 0, rows, filter),
  };
}

/** Width and height of an image whose longer side is resized to `size`. */
function letterboxed(width, height, size) {
  const longer = Math.max(width, height);
  return [width, height].map((side) => Math.max(1, roundHalfEven((side * size) / longer)));
}

/** Pads an image of `width` x `height` at the right and at the bottom to a square. */
function pad(data, [width, height], size, channels) {
  if (width === size && height === size) return data;
  const padded = new Uint8Array(size * size * channels).fill(PADDING);
  for (let y = 0; y < height; y++) {
    padded.set(data.subarray(y * width * channels, (y + 1) * width * channels), y * size * channels);
  }
  return padded;
}

async function decode(file) {
  let bitmap;
  try {
    // Colour profiles are ignored, as by Pillow; the EXIF orientation is applied.
    bitmap = await createImageBitmap(file, { colorSpaceConversion: "none", imageOrientation: "from-image" });
  } catch (error) {
    throw new Error("This file cannot be decoded as an image; it is damaged or in a format that this browser cannot read.", {
      cause: error,
    });
  }
  if (bitmap.width * bitmap.height > MAX_PIXELS) {
    const millions = Math.round((bitmap.width * bitmap.height) / 1e6);
    bitmap.close();
    throw new Error(`The image has ${millions} million pixels, the limit is ${MAX_PIXELS / 1e6} million; reduce its size.`);
  }
  return bitmap;
}

/** The centre crop of an image that is more elongated than 4:1; otherwise the whole image. */
function cropElongated(width, height) {
  const longest = MAX_ASPECT_RATIO * Math.min(width, height);
  return {
    left: Math.max(0, Math.floor((width - longest) / 2)),
    top: Math.max(0, Math.floor((height - longest) / 2)),
    width: Math.min(width, longest),
    height: Math.min(height, longest),
  };
}

/** Width and height after resizing the shorter side to `shorter`; the longer side is rounded down. */
function resizedSize(width, height, shorter) {
  const longer = Math.floor((shorter * Math.max(width, height)) / Math.min(width, height));
  return width <= height ? [shorter, longer] : [longer, shorter];
}

/** Start of the centre crop of `size` pixels. */
const cropStart = (whole, size) => roundHalfEven((whole - size) / 2);

/** Rounds half to even, as Python does. */
function roundHalfEven(value) {
  const floor = Math.floor(value);
  return value - floor === 0.5 ? floor + (floor % 2) : Math.round(value);
}

/**
 * Filter taps for outputs `start` to `start + number` of a resize from `before` to `after` pixels: index of the first
 * input pixel, and fixed-point weights.
 */
function filterTaps(before, after, start, number, filter) {
  return weightsOf(before, after, start, number, filter).map(({ first, weights }) => ({
    first,
    weights: Int32Array.from(weights, (value) => Math.trunc(fixed(value))),
  }));
}

/** As `filterTaps`, with weights whose sum is 1. */
export function weightsOf(before, after, start, number, { support, weight } = FILTERS.bilinear) {
  const scale = before / after;
  const stretch = Math.max(scale, 1); // antialias: widen the filter to an output pixel
  return Array.from({ length: number }, (_, index) => {
    const center = (start + index + 0.5) * scale;
    const first = Math.max(0, Math.trunc(center - support * stretch + 0.5));
    const end = Math.min(before, Math.trunc(center + support * stretch + 0.5));
    const weights = Array.from({ length: end - first }, (_, x) => weight((first + x - center + 0.5) / stretch));
    const sum = weights.reduce((total, value) => total + value, 0);
    return { first, weights: weights.map((value) => value / sum) };
  });
}

const fixed = (value) => value * 2 ** PRECISION + (value < 0 ? -0.5 : 0.5);

/** Converts a fixed-point sum to a pixel value; the clamped array limits it to 0..255. */
const pixel = (sum) => (sum + 2 ** (PRECISION - 1)) >> PRECISION;

/** Resizes each row of the crop to `columns.length` pixels, with transparent pixels on white. */
function resizeHorizontally(bitmap, crop, columns, channels) {
  const [width, step] = [columns.length, columns.length * channels];
  const resizedRows = new Uint8ClampedArray(crop.height * step);
  const canvas = new OffscreenCanvas(crop.width, Math.min(BAND_ROWS, crop.height));
  const context = canvas.getContext("2d", { willReadFrequently: true });
  for (let top = 0; top < crop.height; top += BAND_ROWS) {
    const rows = Math.min(BAND_ROWS, crop.height - top);
    context.fillStyle = "white";
    context.fillRect(0, 0, crop.width, rows);
    context.drawImage(bitmap, -crop.left, -crop.top - top);
    const { data } = context.getImageData(0, 0, crop.width, rows);
    if (channels === 1) toGrayscale(data);
    for (let y = 0; y < rows; y++) {
      for (let x = 0; x < width; x++) {
        const { first, weights } = columns[x];
        for (let c = 0; c < channels; c++) {
          let sum = 0;
          for (let k = 0, at = 4 * (y * crop.width + first) + c; k < weights.length; k++, at += 4) sum += data[at] * weights[k];
          resizedRows[(top + y) * step + x * channels + c] = pixel(sum);
        }
      }
    }
  }
  return resizedRows;
}

/** Resizes rows of `step` values to `rows.length` rows. */
function resizeVertically(resizedRows, rows, step) {
  const data = new Uint8ClampedArray(rows.length * step);
  rows.forEach(({ first, weights }, y) => {
    for (let x = 0; x < step; x++) {
      let sum = 0;
      for (let k = 0, at = first * step + x; k < weights.length; k++, at += step) sum += resizedRows[at] * weights[k];
      data[y * step + x] = pixel(sum);
    }
  });
  return new Uint8Array(data.buffer);
}

/** Replaces red of RGBA pixels by the luma of ITU-R 601-2, in Pillow's integer arithmetic. */
function toGrayscale(data) {
  for (let i = 0; i < data.length; i += 4) {
    data[i] = (data[i] * 19595 + data[i + 1] * 38470 + data[i + 2] * 7471 + 0x8000) >> 16;
  }
}

/** Keys' cubic kernel with a = -0.5. */
function cubic(x) {
  const [a, d] = [-0.5, Math.abs(x)];
  if (d < 1) return ((a + 2) * d - (a + 3)) * d * d + 1;
  return d < 2 ? (((d - 5) * d + 8) * d - 4) * a : 0;
}
