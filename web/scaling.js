// Scaling of physical values to network values: (value - offset) / scale.

const FOREGROUND_LEVEL = 10;
const CLIP_FRACTION = 0.999;
const MOST_STEPS = 50;
const TOLERANCE = 1e-6;

// The scaling that gives the foreground of a volume the mean 10: docs/onnx.md describes it.
export function robustScaling(data) {
  const sorted = data.slice().sort();
  const highest = sorted[Math.floor(CLIP_FRACTION * (sorted.length - 1))];
  const mean = (above) => {
    let sum = 0;
    let count = 0;
    for (let place = sorted.length - 1; place >= 0 && Math.min(sorted[place], highest) > above; place--) {
      sum += Math.min(sorted[place], highest);
      count++;
    }
    return count ? sum / count : null;
  };
  let level = mean(-Infinity);
  let threshold = level;
  for (let step = 0; step < MOST_STEPS; step++) {
    const next = mean(Math.fround(threshold));
    if (next === null) break;
    level = next;
    if (Math.abs(threshold - level / 2) <= TOLERANCE * level) break;
    threshold = level / 2;
  }
  return { offset: 0, scale: level > 0 ? level / FOREGROUND_LEVEL : 1 };
}

export function applied(image, { offset, scale }) {
  const [o, s] = [Math.fround(offset), Math.fround(scale)];
  return image.map((value) => Math.fround(value - o) / s);
}

export function inverted(image, { offset, scale }) {
  const [o, s] = [Math.fround(offset), Math.fround(scale)];
  return image.map((value) => Math.fround(value * s) + o);
}
