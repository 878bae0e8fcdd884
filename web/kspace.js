// MRI: the measured block of k-space (docs/physics-mri.md), and how far the k-space of a scan reaches.
// Complex images are {re, im}, Float64Array, row by row. Samples are in units of the image.

import { Refusal } from "./refusal.js";

// Number of samples that are kept along an axis.
export const kept = (size, factor) => Math.floor(size / factor + 1e-9);

// The central block of the k-space of slices of one size.
export class Block {
  constructor(height, width, factor) {
    this.rows = axisOf(height, kept(height, factor));
    this.columns = axisOf(width, kept(width, factor));
  }

  get kept() {
    return [this.rows.kept, this.columns.kept];
  }

  // The samples of an image; `im` is null for a real one.
  samples({ re, im }) {
    const [n, m] = [this.rows.size, this.columns.size];
    const half = { re: new Float64Array(n * this.columns.kept), im: new Float64Array(n * this.columns.kept) };
    for (let row = 0; row < n; row++) along(this.columns, -1, re, im, row * m, 1, half, row * this.columns.kept, 1, 1 / m);
    const block = { re: new Float64Array(this.rows.kept * this.columns.kept), im: new Float64Array(this.rows.kept * this.columns.kept) };
    for (let column = 0; column < this.columns.kept; column++) along(this.rows, -1, half.re, half.im, column, this.columns.kept, block, column, this.columns.kept, 1 / n);
    return block;
  }

  // The image that has these samples and no others.
  image(block) {
    const [n, m] = [this.rows.size, this.columns.size];
    const half = { re: new Float64Array(n * this.columns.kept), im: new Float64Array(n * this.columns.kept) };
    for (let column = 0; column < this.columns.kept; column++) back(this.rows, block, column, this.columns.kept, half, column, this.columns.kept);
    const image = { re: new Float64Array(n * m), im: new Float64Array(n * m) };
    for (let row = 0; row < n; row++) back(this.columns, half, row * this.columns.kept, 1, image, row * m, 1);
    return image;
  }
}

// Cosines and sines of 2 pi bin place / size for the kept bins around the zero frequency.
function axisOf(size, count) {
  const cos = new Float64Array(count * size);
  const sin = new Float64Array(count * size);
  const first = -Math.floor(count / 2);
  for (let bin = 0; bin < count; bin++)
    for (let place = 0; place < size; place++) {
      const turn = ((((first + bin) * place) % size) * 2 * Math.PI) / size;
      cos[bin * size + place] = Math.cos(turn);
      sin[bin * size + place] = Math.sin(turn);
    }
  return { size, kept: count, cos, sin };
}

function along({ size, kept: count, cos, sin }, sign, re, im, from, step, out, to, stride, gain) {
  for (let bin = 0; bin < count; bin++) {
    let [real, imaginary] = [0, 0];
    for (let place = 0, at = from, table = bin * size; place < size; place++, at += step, table++) {
      const [c, s] = [cos[table], sign * sin[table]];
      real += re[at] * c;
      imaginary += re[at] * s;
      if (im) {
        real -= im[at] * s;
        imaginary += im[at] * c;
      }
    }
    out.re[to + bin * stride] = real * gain;
    out.im[to + bin * stride] = imaginary * gain;
  }
}

function back({ size, kept: count, cos, sin }, block, from, step, out, to, stride) {
  for (let bin = 0, at = from; bin < count; bin++, at += step) {
    const [re, im] = [block.re[at], block.im[at]];
    for (let place = 0, put = to, table = bin * size; place < size; place++, put += stride, table++) {
      out.re[put] += re * cos[table] - im * sin[table];
      out.im[put] += re * sin[table] + im * cos[table];
    }
  }
}

// Puts the measured block back in some steps: x <- max(0, x + Re P (low exp(i angle(P x)) - P x)).
// Without `magnitude`, `low` has signs of its own, and negative values are not clipped.
export function keepMeasured(image, low, block, steps, magnitude) {
  const current = Float64Array.from(image);
  for (let step = 0; step < steps; step++) {
    const samples = block.samples({ re: current, im: null });
    const measured = block.samples(magnitude ? withPhase(low, block.image(samples)) : { re: low, im: null });
    for (let place = 0; place < samples.re.length; place++) {
      measured.re[place] -= samples.re[place];
      measured.im[place] -= samples.im[place];
    }
    const change = block.image(measured).re;
    for (let place = 0; place < current.length; place++) {
      current[place] += change[place];
      if (magnitude && current[place] < 0) current[place] = 0;
    }
  }
  image.set(current);
}

function withPhase(low, { re, im }) {
  for (let place = 0; place < low.length; place++) {
    const size = Math.hypot(re[place], im[place]);
    re[place] = size ? (low[place] * re[place]) / size : low[place];
    im[place] = size ? (low[place] * im[place]) / size : 0;
  }
  return { re, im };
}

const TAPERED = 1 / 8; // of a side, at each of its ends
const SPREAD = 2; // samples by which the taper widens a block
const RIM = 1.2;
const FALL = 8;
const LEAST = 48; // pixels of a side

// Where the power of the k-space of slices lies: shares outside the block and in its rim, and how many
// times less far it reaches than the matrix. `unjudged` says why it cannot be told.
export function kspaceExtent(slices, height, width, factor) {
  const least = Math.max(LEAST, Math.ceil(8 * factor));
  if (Math.min(height, width) < least) return { unjudged: `slices of ${height} x ${width} pixels are too small to judge their k-space` };
  const power = new Float64Array(height * width);
  const [down, across] = [taper(height), taper(width)];
  for (const slice of slices) addPower(slice, height, width, down, across, power);
  power[0] = 0;
  const total = power.reduce((sum, value) => sum + value, 0);
  if (!(total > 0)) return { unjudged: "slices are constant, without power in k-space" };
  const centred = shifted(power, height, width, total);
  const within = share(centred, height, width, factor, SPREAD);
  const rim = Math.max(within - share(centred, height, width, RIM * factor, 0), 0);
  const [rows, columns] = [new Float64Array(height), new Float64Array(width)];
  centred.forEach((value, place) => {
    rows[Math.floor(place / width)] += value;
    columns[place % width] += value;
  });
  return { outside: Math.max(1 - within, 0), rim, factor: Math.min(endOf(rows), endOf(columns)) };
}

function taper(size) {
  const length = Math.max(2, Math.floor(size * TAPERED));
  const ramp = (place) => Math.sin((place + 0.5) * (Math.PI / 2 / length)) ** 2;
  return Float64Array.from({ length: size }, (_, place) => ramp(Math.min(place, size - 1 - place, length - 0.5)));
}

function addPower(slice, height, width, down, across, power) {
  const re = Float64Array.from(slice, (value, place) => value * down[Math.floor(place / width)] * across[place % width]);
  const im = new Float64Array(re.length);
  for (let row = 0; row < height; row++) transform(re, im, row * width, 1, width);
  for (let column = 0; column < width; column++) transform(re, im, column, width, height);
  const gain = 1 / (height * width) ** 2;
  for (let place = 0; place < power.length; place++) power[place] += (re[place] ** 2 + im[place] ** 2) * gain;
}

// The discrete Fourier transform of one line, in place.
function transform(re, im, first, step, size) {
  const [lineRe, lineIm] = [new Float64Array(size), new Float64Array(size)];
  for (let place = 0, at = first; place < size; place++, at += step) {
    lineRe[place] = re[at];
    lineIm[place] = im[at];
  }
  const [real, imaginary] = fourier(lineRe, lineIm);
  for (let place = 0, at = first; place < size; place++, at += step) {
    re[at] = real[place];
    im[at] = imaginary[place];
  }
}

// Even sizes are halves of each other's; odd ones are summed as they are.
export function fourier(re, im) {
  const size = re.length;
  if (size === 1) return [re, im];
  const [real, imaginary] = [new Float64Array(size), new Float64Array(size)];
  const { cos, sin } = wave(size);
  if (size % 2) {
    for (let bin = 0; bin < size; bin++)
      for (let place = 0, turn = 0; place < size; place++, turn = (turn + bin) % size) {
        real[bin] += re[place] * cos[turn] + im[place] * sin[turn];
        imaginary[bin] += im[place] * cos[turn] - re[place] * sin[turn];
      }
    return [real, imaginary];
  }
  const half = size / 2;
  const [evenRe, evenIm] = fourier(everyOther(re, 0), everyOther(im, 0));
  const [oddRe, oddIm] = fourier(everyOther(re, 1), everyOther(im, 1));
  for (let bin = 0; bin < half; bin++) {
    const turnedRe = oddRe[bin] * cos[bin] + oddIm[bin] * sin[bin];
    const turnedIm = oddIm[bin] * cos[bin] - oddRe[bin] * sin[bin];
    real[bin] = evenRe[bin] + turnedRe;
    imaginary[bin] = evenIm[bin] + turnedIm;
    real[bin + half] = evenRe[bin] - turnedRe;
    imaginary[bin + half] = evenIm[bin] - turnedIm;
  }
  return [real, imaginary];
}

function everyOther(values, start) {
  const half = new Float64Array(values.length / 2);
  for (let place = 0, at = start; place < half.length; place++, at += 2) half[place] = values[at];
  return half;
}

const waves = new Map();

function wave(size) {
  if (!waves.has(size)) {
    const turn = (place) => (2 * Math.PI * place) / size;
    waves.set(size, {
      cos: Float64Array.from({ length: size }, (_, place) => Math.cos(turn(place))),
      sin: Float64Array.from({ length: size }, (_, place) => Math.sin(turn(place))),
    });
  }
  return waves.get(size);
}

function shifted(power, height, width, total) {
  const out = new Float64Array(power.length);
  for (let row = 0; row < height; row++)
    for (let column = 0; column < width; column++) {
      const to = ((row + Math.floor(height / 2)) % height) * width + ((column + Math.floor(width / 2)) % width);
      out[to] = power[row * width + column] / total;
    }
  return out;
}

function share(power, height, width, factor, more) {
  const [top, bottom] = span(height, factor, more);
  const [left, right] = span(width, factor, more);
  let sum = 0;
  for (let row = top; row < bottom; row++) for (let column = left; column < right; column++) sum += power[row * width + column];
  return sum;
}

function span(size, factor, more) {
  const count = Math.floor(size / factor);
  const first = Math.floor(size / 2) - Math.floor(count / 2) - more;
  return [Math.max(first, 0), Math.min(size, first + count + 2 * more)];
}

// Matrix over extent of k-space, from the power along an axis: where it falls most.
function endOf(profile) {
  const size = profile.length;
  const reach = Math.floor((size - 1) / 2);
  const centre = Math.floor(size / 2);
  const sums = [0];
  for (let place = 0; place < reach; place++) sums.push(sums[place] + profile[centre + 1 + place] + profile[centre - 1 - place]);
  const floor = 1e-12 * Math.max(sums[reach], 1e-300);
  let [best, end] = [FALL, 0];
  for (let place = 4; place < reach - 2; place++) {
    const step = Math.min(Math.max(2, Math.floor(place / 8)), reach - place);
    const fall = (sums[place] - sums[place - step] + floor) / (sums[place + step] - sums[place] + floor);
    if (fall > best) [best, end] = [fall, place];
  }
  return end ? size / (2 * end + 1) : 1;
}

export function requireBlock(name, height, width, factor) {
  if (factor > Math.min(height, width)) throw new Refusal(`${name}: factor ${factor} leaves no sample of k-space of slices of ${height} x ${width}; give at most ${Math.min(height, width)}`);
}
