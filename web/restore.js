// From a plan to the restored values: scale, run the network, scale back, and hold to what was measured.

import { keepMeasured } from "./kspace.js";
import { MODALITIES } from "./modality.js";
import { tissueShift } from "./noise.js";
import { Refusal, digits } from "./refusal.js";
import { applied, inverted } from "./scaling.js";
import { Stack, extremes } from "./stack.js";
import { noiseOf } from "./strength.js";

// `network(image, height, width, level)` resolves to network values; `told(done, all)` hears of each slice.
// Resolves to {data, change, seconds}.
export async function restored(plan, network, told) {
  const { volume, stack } = plan;
  const began = performance.now();
  const data = new Float32Array(volume.data.length);
  const [lowest, highest] = extremes(volume.data);
  const change = { sum: 0, largest: 0 };
  for (let number = 0; number < stack.count; number++) {
    const slice = stack.slice(number);
    const image = await restoredSlice(plan, slice, lowest, network);
    if (!image.every(Number.isFinite)) throw new Refusal(`${volume.name}: its values, up to ${digits(highest)}, overflow in the network; scale it down`);
    stack.put(number, image, data);
    note(change, slice, image);
    told(number + 1, stack.count);
  }
  const seconds = (performance.now() - began) / 1000;
  return { data, seconds, change: changeOf(change, plan, data) };
}

async function restoredSlice({ task, scaling, stack, steps, block, signed, strength, level }, slice, lowest, network) {
  const { height, width } = stack;
  const rules = MODALITIES[task.modality];
  const values = await network(applied(rules.without(slice, task), scaling), height, width, level);
  const image = inverted(values, scaling);
  if (steps) keepMeasured(image, signed ? slice : slice.map((value) => Math.max(value, 0)), block, steps, !signed);
  rules.bound(image, slice, lowest, task);
  if (strength < 1) {
    const part = Math.fround(strength);
    for (let place = 0; place < image.length; place++) image[place] = slice[place] + Math.fround(part * Math.fround(image[place] - slice[place]));
    rules.bound(image, slice, lowest, task);
  }
  return image;
}

function note(change, before, after) {
  for (let place = 0; place < before.length; place++) {
    const difference = Math.fround(after[place] - before[place]);
    change.sum += difference;
    change.largest = Math.max(change.largest, Math.abs(difference));
  }
}

function changeOf({ sum, largest }, { volume, task, stack, axis }, data) {
  return {
    mean: sum / data.length,
    largest,
    noise_before: noiseOf(volume, task),
    noise_after: noiseOf({ ...volume, data }, task),
    shift: task.modality === "CT" ? tissueShift(stack.spread(), new Stack({ ...volume, data }, axis).spread(), stack.height, stack.width) : {},
  };
}
