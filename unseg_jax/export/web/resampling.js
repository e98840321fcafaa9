// Resizes pictures and logits exactly as `segmenter.py` does.

// Pillow keeps the weights of 8-bit pictures as whole numbers, 1 being 2 ** 22.
const PRECISION = 22;

/**
 * Resizes RGBA bytes so that the shorter side has `size` pixels, as `resize_shorter_side` does.
 * @returns {{data: Uint8Array, width: number, height: number}} RGBA.
 */
export function resizeShorterSide({ data, width, height }, size) {
  const shorter = Math.min(width, height);
  const [newWidth, newHeight] = [width, height].map(
    (side) => (side === shorter ? size : Math.floor((size * side) / shorter)),
  );
  const rows = resample(data, height, width, newWidth, 4);
  const resized = resample(rows, 1, height, newHeight, 4 * newWidth);
  return { data: resized, width: newWidth, height: newHeight };
}

/** Pillow's bilinear resize along the middle axis of bytes [before, old, after]. */
function resample(values, before, old, size, after) {
  if (old === size) return values;
  const taps = triangles(old, size);
  const resized = new Uint8Array(before * size * after);
  for (let row = 0; row < before; row++) {
    for (let i = 0; i < size; i++) {
      const { start, weights } = taps[i];
      for (let j = 0; j < after; j++) {
        let sum = 1 << (PRECISION - 1);
        let from = (row * old + start) * after + j;
        for (let k = 0; k < weights.length; k++, from += after) sum += values[from] * weights[k];
        resized[(row * size + i) * after + j] = sum >> PRECISION;
      }
    }
  }
  return resized;
}

/** For each of `size` pixels the first of the `old` ones that it is made of, and their weights. */
function triangles(old, size) {
  const scale = old / size;
  const reach = Math.max(scale, 1); // Wider where the picture shrinks: antialiased.
  return Array.from({ length: size }, (_, i) => {
    const centre = (i + 0.5) * scale;
    const start = Math.max(0, Math.trunc(centre - reach + 0.5));
    const end = Math.min(old, Math.trunc(centre + reach + 0.5));
    const shares = Array.from({ length: end - start }, (_, k) =>
      Math.max(0, 1 - Math.abs((k + start - centre + 0.5) / reach)),
    );
    const total = shares.reduce((sum, share) => sum + share, 0);
    const whole = shares.map((share) => Math.floor(0.5 + (share / total) * 2 ** PRECISION));
    return { start, weights: Int32Array.from(whole) };
  });
}

/**
 * The probability of foreground at a size, as `foreground` has it: the logits resized bilinearly
 * (half-pixel centres, not antialiased), then their sigmoid.
 * @param {{data: Float32Array, width: number, height: number}} logits
 * @param {number} threshold what becomes a probability of 0.5; 0.5 leaves all as they are.
 * @returns {Float32Array} [height, width]
 */
export function probability(logits, width, height, threshold = 0.5) {
  const rows = interpolate(logits.data, logits.height, logits.width, width, 1);
  const values = interpolate(rows, 1, logits.height, height, width);
  const shift = Math.log(threshold / (1 - threshold));
  for (let i = 0; i < values.length; i++) values[i] = 1 / (1 + Math.exp(shift - values[i]));
  return values;
}

/** Two taps along the middle axis of floats [before, old, after], in single precision. */
function interpolate(values, before, old, size, after) {
  const resized = new Float32Array(before * size * after);
  for (let i = 0; i < size; i++) {
    const position = Math.min(Math.max(((i + 0.5) * old) / size - 0.5, 0), old - 1);
    const start = Math.floor(position);
    const step = start < old - 1 ? after : 0;
    const share = Math.fround(position - start);
    for (let row = 0; row < before; row++) {
      let from = (row * old + start) * after;
      let to = (row * size + i) * after;
      for (let j = 0; j < after; j++, from++, to++) {
        const difference = Math.fround(values[from + step] - values[from]);
        resized[to] = values[from] + Math.fround(difference * share);
      }
    }
  }
  return resized;
}
