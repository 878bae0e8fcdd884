// Everything that is decided about a scan before the network runs, as restore-rwkv restore decides it.

import { sliceAxis } from "./affine.js";
import { judged } from "./fit.js";
import { Block, requireBlock } from "./kspace.js";
import { MODALITIES, isSigned } from "./modality.js";
import { Refusal, digits } from "./refusal.js";
import { Stack } from "./stack.js";
import { strengthOf } from "./strength.js";

const STRIDE = 8; // smallest side of a slice, in pixels
const MOST_PIXELS = 800 * 800; // of a slice: WebAssembly has 4 GiB, and a pixel takes 2.7 kB

// `options` are {plane, factor, strength, suv, force}.
export function planOf(volume, task, weights, options) {
  const warnings = [...volume.warnings];
  checkOptions(options, task);
  const axis = sliceAxis(volume, task, options.plane);
  const stack = new Stack(volume, axis);
  checkSize(volume, stack);
  const refinement = refined(volume, stack, task, options, warnings);
  const fit = judged(volume, stack, task, weights.fit[task.name]);
  const forced = requireFit(volume, fit, options, warnings);
  const { rule, no_suv = null, suv_per_unit = null, ...scaling } = MODALITIES[task.modality].scaling(volume, weights.scaling[task.name], options, warnings);
  const strength = strengthOf(volume, task, weights, options, warnings);
  return { volume, task, weights, options, axis, stack, ...refinement, fit: { ...fit, forced }, scaling, rule, no_suv, suv_per_unit, ...strength, warnings };
}

function checkOptions({ factor, strength, suv }, task) {
  if (factor !== null && !(factor > 1 && factor < 1e6)) throw new Refusal(`factor is ${factor}; give a number above 1 and below 1e6, such as 4`);
  if (strength !== null && !(strength >= 0 && strength <= 1)) throw new Refusal(`strength is ${strength}; give a number from 0 to 1`);
  if (suv && task.unit !== "SUV") throw new Refusal(`SUV is not the unit of ${task.name}; untick it`);
}

function checkSize({ name }, { height, width }) {
  if (Math.min(height, width) < STRIDE) throw new Refusal(`${name}: slices are ${height} x ${width} pixels in this plane; choose a plane with at least ${STRIDE} x ${STRIDE}`);
  if (height * width > MOST_PIXELS) throw new Refusal(`${name}: slices of ${height} x ${width} pixels are too large for a page; restore it with the command restore-rwkv restore`);
}

// The steps that keep the measured block of k-space, as the task has them.
function refined(volume, { axis, height, width }, task, { factor }, warnings) {
  if (!task.rules.holds_measurement) return { steps: 0, block: null, signed: false };
  const measured = axis === sliceAxis(volume, task);
  if (!measured) warnings.push(`${volume.name}: the weights for ${task.name} know slices in the plane that they were measured in; leave the plane as in the file unless this is it`);
  requireBlock(volume.name, height, width, factor ?? task.factor);
  const steps = measured ? task.consistency : 0;
  return { steps, block: steps ? new Block(height, width, factor ?? task.factor) : null, signed: steps > 0 && isSigned(volume) };
}

function requireFit({ name }, { findings }, { force }, warnings) {
  const refused = findings.find(({ level }) => level === "unfit");
  if (refused && !force) throw new Refusal(`${name}: ${refused.text}; or tick "Restore it all the same"`);
  warnings.push(...findings.map(({ text }) => `${name}: ${text}`));
  return Boolean(refused);
}

// Says in lines what will be done.
export function linesOf({ stack, task, scaling, rule, steps, block, noise, strength, fit }) {
  const lines = [
    `${stack.count} slices of ${stack.height} x ${stack.width} across axis ${stack.axis}`,
    `Scaling: ${rule}, (value - ${digits(scaling.offset)}) / ${digits(scaling.scale)}`,
  ];
  if (steps) lines.push(`Consistency: ${steps} steps keep the measured ${block.kept.join(" x ")} samples of k-space`);
  if (noise || strength < 1) lines.push(`Strength: ${strength.toFixed(2)}${reasonOf(noise, task)}`);
  if (fit.unjudged) lines.push(`Not compared with the training: ${fit.unjudged}`);
  return lines;
}

function reasonOf(noise, task) {
  if (!noise) return ", as given";
  if (noise.assumed) return `, 1/${digits(noise.factor)} of the dose is assumed, as ${noise.assumed}`;
  if (noise.factor !== null) return `, at 1/${digits(noise.factor)} of the dose`;
  return `, noise of ${digits(noise.found, 3)} ${task.rules.noise_unit} found, up to ${digits(noise.reference, 3)} in a scan of full dose`;
}
