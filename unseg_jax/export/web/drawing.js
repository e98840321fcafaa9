// Draws masks and what else a user may save, as `images/drawing.py` does.

const OUTLINE = [255, 200, 40];
const BACKGROUND_TINT = [14, 20, 44];
const BACKGROUND_BRIGHTNESS = 0.3;

/**
 * @param {"overlay" | "cutout" | "mask"} view
 * @param {ImageData} image
 * @param {Float32Array} probability [height, width]
 * @returns {ImageData} of the same size.
 */
export function draw(view, image, probability) {
  const drawn = new ImageData(image.width, image.height);
  VIEWS[view](image.data, probability, drawn);
  return drawn;
}

const VIEWS = { mask: drawMask, cutout: drawCutout, overlay: drawOverlay };

function drawMask(_, probability, { data }) {
  for (let i = 0; i < probability.length; i++) {
    data.fill(probability[i] > 0.5 ? 255 : 0, 4 * i, 4 * i + 3);
    data[4 * i + 3] = 255;
  }
}

function drawCutout(pixels, probability, { data }) {
  data.set(pixels);
  for (let i = 0; i < probability.length; i++) data[4 * i + 3] = Math.round(255 * probability[i]);
}

/** The foreground in colour and outlined, the background dark and blue. */
function drawOverlay(pixels, probability, { data, width, height }) {
  for (let i = 0; i < probability.length; i++) {
    const grey = 0.2989 * pixels[4 * i] + 0.587 * pixels[4 * i + 1] + 0.114 * pixels[4 * i + 2];
    for (let c = 0; c < 3; c++) {
      const dark = BACKGROUND_BRIGHTNESS * grey + BACKGROUND_TINT[c];
      data[4 * i + c] = Math.round(dark + probability[i] * (pixels[4 * i + c] - dark));
    }
    data[4 * i + 3] = 255;
  }
  const thickness = Math.max(1, Math.round(Math.min(width, height) / 180));
  const distance = distances(probability, width, height);
  for (let i = 0; i < distance.length; i++) {
    if (distance[i] > 0 && distance[i] <= thickness) data.set(OUTLINE, 4 * i);
  }
}

/** How many steps, up, down, left or right, each pixel is from the background; 0 within it. */
function distances(probability, width, height) {
  const steps = new Int32Array(probability.length);
  const approach = (i, column, row, direction) => {
    if (!(probability[i] > 0.5)) return 0;
    const beside = column ? steps[i + direction] : Infinity;
    const next = row ? steps[i + direction * width] : Infinity;
    return Math.min(beside, next) + 1;
  };
  const far = width + height;
  for (let y = 0, i = 0; y < height; y++) {
    for (let x = 0; x < width; x++, i++) steps[i] = Math.min(far, approach(i, x, y, -1));
  }
  for (let y = 0, i = steps.length - 1; y < height; y++) {
    for (let x = 0; x < width; x++, i--) steps[i] = Math.min(steps[i], approach(i, x, y, 1));
  }
  return steps;
}
