// Noise of CT and PET as restore-rwkv measures it: restore_rwkv.physics.ct and restore_rwkv.physics.pet.
// Slices are Float32Array, row by row, all of one height and width.

const NORMAL = 1.4826; // standard deviation of a normal distribution over its median absolute deviation
const FEWEST = 200; // pixels
const SOFT_TISSUE = [-100, 100]; // HU
const LIMIT = 2.5; // standard deviations at which differences are clipped
const TISSUES = { air: [-1100, -900], water: [-50, 100], bone: [300, 3072] };

// Mean over side x side pixels; at the border over those that are there.
export function boxMean(image, height, width, side) {
  return lines(lines(image, width, height, width, 1, side), height, width, 1, width, side);
}

// Mean of `side` neighbours along lines of `size` pixels that are `step` apart.
function lines(image, size, count, apart, step, side) {
  const out = new Float32Array(image.length);
  const half = Math.floor(side / 2);
  for (let line = 0; line < count; line++)
    for (let place = 0; place < size; place++) {
      const [first, last] = [Math.max(0, place - half), Math.min(size - 1, place + half)];
      let sum = 0;
      for (let near = first, at = line * apart + first * step; near <= last; near++, at += step) sum += image[at];
      out[line * apart + place * step] = sum / (last - first + 1);
    }
  return out;
}

function median(values) {
  return Float32Array.from(values).sort()[Math.floor((values.length - 1) / 2)];
}

const spreadOf = (values) => NORMAL * median(values.map(Math.abs));

// CT: {noise, flat, level}: the fine noise of each slice, where it is measured, and its level in HU;
// {unjudged} where there is too little soft tissue.
function fineNoise(slices, height, width) {
  if (Math.min(height, width) < 2) return { unjudged: `slices of ${height} x ${width} pixels are too few to measure their noise` };
  const soft = slices.map((slice) => softTissue(slice, height, width));
  const inside = soft.reduce((sum, mask) => sum + mask.reduce((count, is) => count + is, 0), 0);
  if (inside < FEWEST) return { unjudged: `it has ${inside} pixels inside soft tissue (-100 to 100 HU), too few to measure its noise` };
  const slopes = slices.map((slice) => slopeOf(boxMean(boxMean(slice, height, width, 5), height, width, 5), height, width));
  const found = Float32Array.from(slopes.flatMap((slope, at) => [...slope.filter((_, place) => soft[at][place])])).sort();
  const limit = found[Math.ceil(0.3 * found.length) - 1];
  const flat = slopes.map((slope, at) => slope.map((value, place) => (soft[at][place] && value <= limit ? 1 : 0)));
  const noise = slices.map((slice) => {
    const smooth = boxMean(slice, height, width, 7);
    return slice.map((value, place) => value - smooth[place]);
  });
  const values = Float32Array.from(noise.flatMap((image, at) => [...image.filter((_, place) => flat[at][place])]));
  return { noise, flat, level: spreadOf(values) };
}

function softTissue(slice, height, width) {
  const smooth = boxMean(slice, height, width, 5);
  const soft = smooth.map((value) => (value > SOFT_TISSUE[0] && value < SOFT_TISSUE[1] ? 1 : 0));
  return boxMean(soft, height, width, 9).map((value) => (value > 0.999 ? 1 : 0));
}

function slopeOf(image, height, width) {
  const slope = new Float32Array(image.length);
  const between = (place, before, after, apart) => (image[after] - image[before]) / (apart || 1);
  for (let row = 0, place = 0; row < height; row++)
    for (let column = 0; column < width; column++, place++) {
      const [up, down] = [row > 0 ? 1 : 0, row < height - 1 ? 1 : 0];
      const [left, right] = [column > 0 ? 1 : 0, column < width - 1 ? 1 : 0];
      slope[place] = Math.hypot(between(place, place - up * width, place + down * width, up + down), between(place, place - left, place + right, left + right));
    }
  return boxMean(slope, height, width, 5);
}

export function noiseOfCT(slices, height, width) {
  return fineNoise(slices, height, width);
}

// CT: level in HU, correlation of neighbouring pixels, and frequency in cycles per mm.
export function textureOfCT(slices, height, width, pixel) {
  const found = fineNoise(slices, height, width);
  if (found.unjudged) return found;
  if (!(found.level > 0)) return { unjudged: "it has no noise in soft tissue" };
  const limit = LIMIT * found.level;
  let [sum, count] = [0, 0];
  const clipped = found.noise.map((image) => image.map((value) => Math.min(limit, Math.max(-limit, value))));
  clipped.forEach((image, at) =>
    image.forEach((value, place) => {
      if (found.flat[at][place]) [sum, count] = [sum + value * value, count + 1];
    }),
  );
  const products = [width, 1].map((step) => neighbours(clipped, found.flat, width, step));
  const correlation = (products[0] + products[1]) / 2 / (sum / count);
  return { level: found.level, correlation, frequency: Math.sqrt(Math.max(1 - correlation, 0) / 2) / (Math.PI * pixel) };
}

function neighbours(images, flat, width, step) {
  let [sum, count] = [0, 0];
  images.forEach((image, at) => {
    for (let place = 0; place + step < image.length; place++) {
      const wraps = step === 1 && place % width === width - 1;
      if (!wraps && flat[at][place] && flat[at][place + step]) [sum, count] = [sum + image[place] * image[place + step], count + 1];
    }
  });
  return sum / count;
}

// PET: noise as a fraction of the values.
export function noiseOfPET(slices, height, width) {
  const means = slices.map((slice) => boxMean(slice, height, width, 5));
  const all = means.reduce((sum, mean) => sum + mean.reduce((total, value) => total + value, 0), 0) / (slices.length * height * width);
  let [sum, count] = [0, 0];
  for (const mean of means) for (const value of mean) if (value >= all) [sum, count] = [sum + value, count + 1];
  const limit = (0.5 * sum) / count;
  const ratios = [];
  means.forEach((mean, at) => {
    const foreground = mean.map((value) => (value > limit && value > 0 ? 1 : 0));
    const inside = boxMean(foreground, height, width, 9);
    for (let place = 0; place < mean.length; place++) if (inside[place] > 0.999) ratios.push(Math.abs(filtered(slices[at], height, width, place) / mean[place]));
  });
  if (ratios.length < FEWEST) return { unjudged: `it has ${ratios.length} pixels inside the foreground, too few to measure its noise` };
  return { level: NORMAL * median(ratios) };
}

// One pixel of the image filtered with (1, -2, 1)^T (1, -2, 1) / 6, with 0 around it.
function filtered(image, height, width, place) {
  const [row, column] = [Math.floor(place / width), place % width];
  let sum = 0;
  for (const [down, one] of [[-1, 1], [0, -2], [1, 1]])
    for (const [right, other] of [[-1, 1], [0, -2], [1, 1]]) {
      const there = row + down >= 0 && row + down < height && column + right >= 0 && column + right < width;
      if (there) sum += one * other * image[place + down * width + right];
    }
  return sum / 6;
}

// CT: mean change of slices by kind of tissue, in HU; null for one that is hardly there.
export function tissueShift(before, after, height, width) {
  const smooth = before.map((slice) => boxMean(slice, height, width, 5));
  const meanOf = ([low, high]) => {
    let [sum, count] = [0, 0];
    smooth.forEach((image, at) =>
      image.forEach((value, place) => {
        if (value >= low && value <= high) [sum, count] = [sum + after[at][place] - before[at][place], count + 1];
      }),
    );
    return count >= FEWEST ? sum / count : null;
  };
  return Object.fromEntries(Object.entries(TISSUES).map(([name, range]) => [name, meanOf(range)]));
}
