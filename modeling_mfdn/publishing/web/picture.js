// A picture as the model wants it, as close to MFDNProcessor as a browser allows: on a white square, resized with the
// filter of Pillow and torchvision that the model was trained with (widened when it shrinks), normalised, channels first.
const MAX_SIDE = 2048; // larger ones are shrunk by the browser first: the filter below visits every pixel

export function toPixels(bitmap, { image_size: size, mean, std, resample }) {
  const side = Math.max(bitmap.width, bitmap.height);
  const scale = Math.min(1, MAX_SIDE / side);
  const [width, height] = [bitmap.width, bitmap.height].map((length) => Math.max(1, Math.round(length * scale)));
  const square = Math.max(width, height);
  const canvas = new OffscreenCanvas(square, square);
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillStyle = "white"; // also behind transparent pixels
  context.fillRect(0, 0, square, square);
  context.imageSmoothingQuality = "high";
  context.drawImage(bitmap, (square - width) >> 1, (square - height) >> 1, width, height);
  const pixels = resize(context.getImageData(0, 0, square, square).data, square, size, FILTERS[resample]);
  const area = size * size;
  return pixels.map((value, i) => {
    const channel = Math.floor(i / area);
    const rounded = Math.min(255, Math.max(0, Math.round(value)));
    return (rounded / 255 - mean[channel]) / std[channel];
  });
}

// RGBA bytes [from, from, 4] → floats [3, to, to], first along the rows, then along the columns.
export function resize(data, from, to, filter) {
  const weights = filterWeights(from, to, filter);
  const rows = new Uint8ClampedArray(3 * from * to); // rounded and cut in between, as there
  const result = new Float32Array(3 * to * to);
  for (let channel = 0; channel < 3; channel++) {
    for (let y = 0; y < from; y++) {
      for (let x = 0; x < to; x++) {
        const { start, values } = weights[x];
        let sum = 0;
        for (let k = 0; k < values.length; k++) sum += values[k] * data[4 * (y * from + start + k) + channel];
        rows[(channel * from + y) * to + x] = sum;
      }
    }
    for (let y = 0; y < to; y++) {
      const { start, values } = weights[y];
      for (let x = 0; x < to; x++) {
        let sum = 0;
        for (let k = 0; k < values.length; k++) sum += values[k] * rows[(channel * from + start + k) * to + x];
        result[(channel * to + y) * to + x] = sum;
      }
    }
  }
  return result;
}

const FILTERS = { bilinear: { reach: 1, curve: triangle }, bicubic: { reach: 2, curve: cubic } };

function filterWeights(from, to, { reach, curve }) {
  const scale = from / to;
  const width = Math.max(1, scale);
  return Array.from({ length: to }, (_, place) => {
    const centre = (place + 0.5) * scale;
    const start = Math.max(0, Math.floor(centre - reach * width + 0.5));
    const end = Math.min(from, Math.floor(centre + reach * width + 0.5));
    const values = Float64Array.from({ length: end - start }, (_, k) => curve((start + k + 0.5 - centre) / width));
    const sum = values.reduce((a, b) => a + b, 0);
    return { start, values: values.map((value) => value / sum) };
  });
}

function triangle(x) {
  return Math.max(0, 1 - Math.abs(x));
}

function cubic(x) {
  const a = -0.5;
  x = Math.abs(x);
  if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
  return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}
