// Rules of each modality: what its values cannot be, what is measured of it, and what a restored slice is held to.

import { textureOfCT, noiseOfCT, noiseOfPET } from "./noise.js";
import { kspaceExtent } from "./kspace.js";
import { digits } from "./refusal.js";
import { robustScaling } from "./scaling.js";
import { extremes } from "./stack.js";

const SAMPLES = 1_000_000;
const SIGNED = 0.1; // of the voxels
const PHASES = [[Math.PI, 0.01], [4096, 2], [180, 0.5]]; // largest value, and how close to it

export function isSigned({ data }) {
  return data.reduce((count, value) => count + (value < 0), 0) / data.length > SIGNED;
}

// About a million voxels in rising order, without those of the smallest value.
function sampled({ data }) {
  const step = Math.max(1, Math.floor(data.length / SAMPLES));
  const values = Float32Array.from({ length: Math.ceil(data.length / step) }, (_, place) => data[place * step]).sort();
  const first = values.findIndex((value) => value > values[0]);
  return first < 0 ? values : values.subarray(first);
}

function quantile(sorted, share) {
  const place = share * (sorted.length - 1);
  const below = Math.floor(place);
  const above = Math.min(below + 1, sorted.length - 1);
  return sorted[below] + (place - below) * (sorted[above] - sorted[below]);
}

function farBelow(volume, title) {
  const values = sampled(volume);
  const limit = Math.fround(-0.05 * quantile(values, 0.999));
  const share = values.reduce((count, value) => count + (value < limit), 0) / values.length;
  if (share <= 0.01) return null;
  return { level: "doubtful", kind: "strange-values", text: `${Math.round(100 * share)} % of the values are far below 0, impossible for ${title}; is it CT?` };
}

const plain = {
  strange: (volume, { title }) => farBelow(volume, title),
  without: (slice) => slice,
  bound(restored, slice, lowest) {
    // NaN stays: it is refused as an overflow.
    if (lowest >= 0) for (let place = 0; place < restored.length; place++) if (restored[place] < 0) restored[place] = 0;
  },
  scaling: (volume, rule) => ({ ...(rule.kind === "robust" ? robustScaling(volume.data) : { offset: rule.offset, scale: rule.scale }), rule: rule.kind }),
};

const MR = {
  ...plain,
  strange(volume, rules) {
    const [low, high] = extremes(volume.data);
    for (const [limit, near] of PHASES)
      if (Math.max(Math.abs(low + limit), Math.abs(high - limit)) <= near)
        return { level: "unfit", kind: "phase", text: `values from ${digits(low, 4)} to ${digits(high, 4)} are those of a phase; give the magnitude` };
    return plain.strange(volume, rules);
  },
  measure(stack, task) {
    const found = kspaceExtent(stack.spread(), stack.height, stack.width, task.factor);
    return found.unjudged ? found : { power_outside: found.outside, power_in_rim: found.rim, kspace_factor: found.factor };
  },
};

const CT = {
  ...plain,
  strange(volume) {
    if (quantile(sampled(volume), 0.01) <= -50) return null;
    return { level: "unfit", kind: "strange-values", text: "hardly a value is below -50, so these are not Hounsfield units (air is -1000); give HU, or another task" };
  },
  measure(stack, _, spacing) {
    const slices = stack.spread().filter((_, place) => place % 2 === 0);
    const pixel = Math.max(...spacing.filter((_, axis) => axis !== stack.axis));
    const found = textureOfCT(slices, stack.height, stack.width, pixel);
    return found.unjudged ? found : { noise: found.level, noise_correlation: found.correlation, noise_frequency: found.frequency };
  },
  noise: noiseOfCT,
  without: (slice, task) => slice.map((value) => Math.max(value, task.value_range[0])),
  // Padding comes back, and nothing else may lie below air.
  bound(restored, slice, lowest, task) {
    const air = task.value_range[0];
    for (let place = 0; place < restored.length; place++) {
      restored[place] = Math.max(restored[place], Math.min(slice[place], air));
      if (lowest < air && slice[place] === lowest) restored[place] = lowest;
    }
    plain.bound(restored, slice, lowest);
  },
};

const PT = {
  ...plain,
  strange(volume, rules) {
    const found = plain.strange(volume, rules);
    const below = volume.data.reduce((count, value) => count + (value < 0), 0) / volume.data.length;
    return found && below >= 0.3 ? { ...found, level: "unfit" } : found;
  },
  measure(stack, task, spacing) {
    const other = otherPixel(spacing, stack.axis, task.rules.pixel);
    if (other) return { unjudged: `pixels of ${digits(other, 3)} mm, and the noise is known for ${digits(task.rules.pixel)} mm` };
    const found = noiseOfPET(stack.spread(), stack.height, stack.width);
    return found.unjudged ? found : { noise: found.level };
  },
  noise: noiseOfPET,
  scaling(volume, rule, { suv }, warnings) {
    if (suv || rule.kind === "robust") return { ...plain.scaling(volume, rule), suv_per_unit: rule.kind === "robust" ? null : 1 };
    const reason = "PET of unknown unit";
    warnings.push(`${volume.name}: ${reason}, so it is scaled by its own foreground, unlike the training data; if its values are SUV, say so`);
    return { ...robustScaling(volume.data), rule: "robust", no_suv: reason };
  },
};

export const MODALITIES = { MR, CT, PT };

// The side in mm of pixels that are not of a given size within a tenth; undefined where they are.
export function otherPixel(spacing, across, pixel) {
  return spacing.find((side, axis) => axis !== across && Math.abs(side / pixel - 1) > 0.1);
}
