// The strength of the correction, from the noise that a reduced dose added to a scan: restore_rwkv.tasks.strength.

import { sliceAxis } from "./affine.js";
import { MODALITIES, otherPixel } from "./modality.js";
import { Refusal, digits } from "./refusal.js";
import { Stack } from "./stack.js";

const MOST_LEVEL = 4; // octaves
const HARDLY = 0.1; // strength

// {strength, noise, level}: the part of the correction that is applied, how the noise was found, and what a
// network that is told the level of the noise is told (null for others).
export function strengthOf(volume, task, weights, options, warnings) {
  const told = weights.noise_level;
  const { noise, strength } = found(volume, task, weights.strength[task.name] ?? null, told, options, warnings);
  return { strength, noise, level: told ? (noise ? levelOf(noise.ratio) : 0) : null };
}

function found(volume, task, calibration, told, { factor, strength }, warnings) {
  if (!task.rules.noise_unit) {
    if (strength !== null && strength !== 1) throw new Refusal(`strength: is for the noise of a reduced dose, not ${task.name}; leave it empty`);
    return { noise: null, strength: 1 };
  }
  if (!told && strength !== null) {
    if (factor !== null) throw new Refusal("strength and factor are both given; give one of them");
    return { noise: null, strength };
  }
  if (!told && !calibration) {
    if (factor !== null) throw new Refusal(`factor: the weights have no calibrated strength for ${task.name}, so it would change nothing; leave it empty`);
    return { noise: null, strength: 1 };
  }
  const noise = addedNoise(volume, task, factor, calibration, warnings);
  if (strength !== null) return { noise, strength };
  const calibrated = calibration ? at(calibration.points, noise.ratio) : 1;
  if (noise.reference !== null && calibrated < HARDLY)
    warnings.push(`${volume.name}: is hardly noisier than a scan of full dose, so it is left nearly as it is (strength ${calibrated.toFixed(2)}); give the factor F if it was taken at 1/F of the dose`);
  return { noise, strength: calibrated };
}

function addedNoise(volume, task, factor, calibration, warnings) {
  if (factor !== null) return { ratio: Math.sqrt(1 - 1 / factor), factor, found: null, reference: null, assumed: null };
  const reason = unmeasured(volume, task, calibration);
  if (typeof reason !== "string") return reason;
  warnings.push(`${volume.name}: ${reason}, so 1/${digits(task.factor)} of the dose is assumed; give the factor F if it is 1/F`);
  return { ratio: Math.sqrt(1 - 1 / task.factor), factor: task.factor, found: null, reference: null, assumed: reason };
}

// The noise compared with that of a full dose, or why it cannot be.
function unmeasured(volume, task, calibration) {
  if (!calibration) return "the weights do not know the noise of a full dose";
  const axis = sliceAxis(volume, task);
  const other = calibration.pixel === null ? undefined : otherPixel(volume.spacing, axis, calibration.pixel);
  if (other) return `its pixels are ${digits(other, 3)} mm, and the noise is known for ${digits(calibration.pixel)} mm`;
  const stack = new Stack(volume, axis);
  const { unjudged, level } = MODALITIES[task.modality].noise(stack.spread(), stack.height, stack.width);
  if (unjudged) return `its noise cannot be measured (${unjudged})`;
  const ratio = level > calibration.reference ? Math.sqrt(1 - (calibration.reference / level) ** 2) : 0;
  return { ratio, factor: null, found: level, reference: calibration.reference, assumed: null };
}

// The noise of a volume; null where it cannot be measured, or low quality is not noise.
export function noiseOf(volume, task) {
  const measure = MODALITIES[task.modality].noise;
  if (!measure) return null;
  const stack = new Stack(volume, sliceAxis(volume, task));
  return measure(stack.spread(), stack.height, stack.width).level ?? null;
}

function levelOf(ratio) {
  const full = Math.sqrt(1 - ratio ** 2);
  if (ratio === 0 || full === 0) return ratio === 0 ? -MOST_LEVEL : MOST_LEVEL;
  return Math.min(MOST_LEVEL, Math.max(-MOST_LEVEL, Math.log2(ratio / full)));
}

// Linear between the points, which start at (0, 0).
function at(points, ratio) {
  let [before, low] = points[0];
  for (const [next, high] of points.slice(1)) {
    if (ratio <= next) return low + ((ratio - before) / (next - before)) * (high - low);
    [before, low] = [next, high];
  }
  return low;
}
