// Characters that were taught, as gallery_mfdn.py has them: the same formulas, the same file.
const FORMAT = "mfdn-gallery-1";
const MAX_NAME = 200;
const SIZES = { F16: 2, F32: 4, I32: 4, I64: 8, U8: 1 };

// A gallery of the model whose axes `axes` are: { model, spread, taught_bias, taught_likeness, odd_likeness }.
export class Gallery {
  constructor(axes) {
    this.axes = axes;
    this.known = new Map(); // count → terms
    this.characters = new Map(); // name → { mean: Float32Array, count, thumbnail: Uint8Array }
  }

  // What the likeness to a character of `count` pictures needs and no picture changes.
  terms(count) {
    if (!this.known.has(count)) {
      const shrunk = this.axes.spread.map((spread) => (count * spread) / (count * spread + 1));
      const variance = this.axes.spread.map((spread) => 1 + spread / (count * spread + 1));
      const offset = this.axes.spread.reduce((sum, spread, i) => sum + Math.log(1 + spread) - Math.log(variance[i]), 0);
      this.known.set(count, { shrunk, variance, offset });
    }
    return this.known.get(count);
  }

  // How much likelier z is of a character of whom `count` pictures with this mean are known than of an unknown one, in
  // logarithms.
  likeness(z, mean, count) {
    const { shrunk, variance, offset } = this.terms(count);
    const { spread } = this.axes;
    let sum = offset;
    for (let i = 0; i < z.length; i += 1) {
      const away = z[i] - shrunk[i] * mean[i];
      sum += (z[i] * z[i]) / (1 + spread[i]) - (away * away) / variance[i];
    }
    return sum / 2;
  }

  // name → log-odds against a character that nobody knows.
  logOdds(z) {
    const odds = ({ mean, count }) => this.axes.taught_bias + this.axes.taught_likeness * this.likeness(z, mean, count);
    return new Map([...this.characters].map(([name, taught]) => [name, odds(taught)]));
  }

  // Teach a character, or add pictures to it. Returns which of the pictures are unlike the others.
  teach(name, pictures, thumbnail = new Uint8Array()) {
    const known = this.characters.get(name);
    const odd = this.oddPictures(pictures, known);
    const count = (known?.count ?? 0) + pictures.length;
    const mean = Float32Array.from(pictures[0], (_, i) =>
      ((known ? known.mean[i] * known.count : 0) + pictures.reduce((sum, z) => sum + z[i], 0)) / count);
    this.characters.set(name, { mean, count, thumbnail: known?.thumbnail.length ? known.thumbnail : thumbnail });
    return odd;
  }

  oddPictures(pictures, known) {
    const kept = pictures.map((_, i) => i);
    while (kept.length > Math.max(pictures.length / 2, known ? 0 : 2)) {
      const others = kept.length - 1 + (known?.count ?? 0);
      const likeness = kept.map((row) => {
        const mean = Float32Array.from(pictures[row], (_, i) =>
          (kept.reduce((sum, j) => sum + (j === row ? 0 : pictures[j][i]), 0) + (known ? known.mean[i] * known.count : 0)) / others);
        return this.likeness(pictures[row], mean, others);
      });
      const lowest = Math.min(...likeness);
      if (lowest >= this.axes.odd_likeness) break;
      kept.splice(likeness.indexOf(lowest), 1);
    }
    return pictures.map((_, i) => i).filter((i) => !kept.includes(i));
  }

  // The file, as Python reads it.
  save() {
    const taught = [...this.characters.values()];
    let end = 0n;
    const parts = {
      counts: ["I32", [taught.length], Int32Array.from(taught, ({ count }) => count)],
      means: ["F32", [taught.length, this.axes.spread.length], taught.map(({ mean }) => mean)],
      thumbnail_ends: ["I64", [taught.length], BigInt64Array.from(taught, ({ thumbnail }) => (end += BigInt(thumbnail.length)))],
      thumbnails: ["U8", [taught.reduce((sum, { thumbnail }) => sum + thumbnail.length, 0)], taught.map(({ thumbnail }) => thumbnail)],
    };
    const names = JSON.stringify([...this.characters.keys()]);
    const header = { __metadata__: { format: FORMAT, model: this.axes.model, names } };
    let offset = 0;
    for (const [name, [dtype, shape]] of Object.entries(parts)) {
      const size = shape.reduce((a, b) => a * b, SIZES[dtype]);
      header[name] = { dtype, shape, data_offsets: [offset, (offset += size)] };
    }
    const text = new TextEncoder().encode(JSON.stringify(header));
    const padded = new Uint8Array(Math.ceil(text.length / 8) * 8).fill(32);
    padded.set(text);
    const length = new BigUint64Array([BigInt(padded.length)]);
    return new Blob([length, padded, ...Object.values(parts).flatMap(([, , data]) => data)]);
  }

  // Add the characters of a file; of a name that is there, the pictures of both count. Returns how many; throws a
  // sentence, and adds nothing, where it is none of this model.
  load(buffer) {
    let found;
    try {
      found = readTensors(buffer);
    } catch {
      throw new Error("This is no gallery, or a damaged one.");
    }
    const { metadata, tensors } = found;
    if (metadata.format !== FORMAT) throw new Error("This is no gallery that was exported here or made by mfdn teach.");
    if (metadata.model !== this.axes.model) {
      throw new Error("Another model made this gallery: what it says of pictures means nothing to this one.");
    }
    const names = JSON.parse(metadata.names);
    const width = this.axes.spread.length;
    const { means, counts, thumbnails, thumbnail_ends: ends } = tensors;
    const isWhole = names.every(isName) && new Set(names).size === names.length && counts.length === names.length
      && means.length === names.length * width && ends.length === names.length && means.every(Number.isFinite);
    if (!isWhole) throw new Error("This gallery is damaged: names, means and counts do not fit each other.");
    names.forEach((name, row) => {
      const mean = Float32Array.from(means.slice(row * width, (row + 1) * width));
      const thumbnail = thumbnails.slice(row ? ends[row - 1] : 0, ends[row]);
      const mine = this.characters.get(name);
      const count = counts[row] + (mine?.count ?? 0);
      if (mine) mean.forEach((value, i) => { mean[i] = (value * counts[row] + mine.mean[i] * mine.count) / count; });
      this.characters.set(name, { mean, count, thumbnail: mine?.thumbnail.length ? mine.thumbnail : Uint8Array.from(thumbnail) });
    });
    return names.length;
  }
}

export function isName(name) {
  return typeof name === "string" && name.trim() === name && name.length > 0 && name.length <= MAX_NAME && !/\p{C}/u.test(name);
}

// A safetensors file: { metadata, tensors: { name → array of numbers } }.
function readTensors(buffer) {
  const view = new DataView(buffer);
  const start = 8 + Number(view.getBigUint64(0, true));
  const { __metadata__: metadata, ...entries } = JSON.parse(new TextDecoder().decode(new Uint8Array(buffer, 8, start - 8)));
  const read = {
    F16: (bytes) => Float32Array.from(new Uint16Array(bytes), fromHalf),
    F32: (bytes) => new Float32Array(bytes),
    I32: (bytes) => new Int32Array(bytes),
    I64: (bytes) => Array.from(new BigInt64Array(bytes), Number),
    U8: (bytes) => new Uint8Array(bytes),
  };
  const tensors = Object.fromEntries(Object.entries(entries).map(([name, { dtype, data_offsets: [from, to] }]) =>
    [name, read[dtype](buffer.slice(start + from, start + to))]));
  return { metadata, tensors };
}

function fromHalf(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 0x1f;
  const fraction = bits & 0x3ff;
  if (exponent === 0x1f) return fraction ? NaN : sign * Infinity;
  return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * (fraction / 1024));
}

// ---------------------------------------------------------------- what stays in this browser, by model
function database() {
  return new Promise((resolve, reject) => {
    const opening = indexedDB.open("mfdn", 1);
    opening.onupgradeneeded = () => opening.result.createObjectStore("galleries");
    opening.onsuccess = () => resolve(opening.result);
    opening.onerror = () => reject(opening.error);
  });
}

async function inStore(mode, action) {
  const opened = await database();
  return new Promise((resolve, reject) => {
    const change = opened.transaction("galleries", mode);
    const asked = action(change.objectStore("galleries"));
    change.oncomplete = () => { opened.close(); resolve(asked.result); };
    change.onerror = change.onabort = () => { opened.close(); reject(change.error); };
  });
}

export async function keep(gallery) {
  const file = await gallery.save().arrayBuffer();
  return inStore("readwrite", (store) => store.put(file, gallery.axes.model));
}

export function kept(axes) {
  return inStore("readonly", (store) => store.get(axes.model));
}
