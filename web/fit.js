// Whether an image is what the weights are for, by its values: restore_rwkv.restoration.fit.

import { MODALITIES } from "./modality.js";
import { digits } from "./refusal.js";
import { extremes } from "./stack.js";

const NEARLY_EMPTY = 1e-4; // of the voxels
const LABELS = 256;
const ALIKE = 0.9; // of neighbours, in labels
const SPACINGS = [1e-3, 200]; // mm: beyond, the unit is not mm
const PLAUSIBLE = [0.02, 30];

// {outcome, findings, measures, unjudged}; `ranges` are those of the training.
export function judged(volume, stack, task, ranges) {
  const findings = [...geometry(volume.spacing)];
  const empty = emptiness(volume.data);
  if (empty) return closed([...findings, empty], {}, null);
  findings.push(...ofValues(volume, stack, task));
  if (!ranges) return closed(findings, {}, "the weights record no range of their training");
  const { unjudged, ...measures } = MODALITIES[task.modality].measure(stack, task, volume.spacing);
  if (unjudged) return closed(findings, {}, unjudged);
  for (const [name, measure] of Object.entries(task.rules.measures)) if (name in ranges && name in measures) findings.push(...compared(name, measure, measures, ranges[name]));
  return closed(findings, measures, null);
}

function closed(findings, measures, unjudged) {
  const outcome = ["unfit", "doubtful"].find((level) => findings.some((finding) => finding.level === level)) ?? "fit";
  return { outcome, findings, measures, unjudged };
}

function compared(name, measure, measures, [lowest, highest]) {
  const { margin, differences, percent, far, title } = measure;
  const value = measures[name];
  const low = differences ? lowest - margin : lowest / margin;
  const high = differences ? highest + margin : highest * margin;
  const meaning = value < low ? measure.low : value > high ? measure.high : null;
  if (!meaning) return [];
  const shown = (number) => (percent ? `${digits(100 * number, 2)} %` : digits(number, 3));
  const filled = meaning.replace(/\{(\w+)[^}]*\}/g, (_, key) => digits(measures[key], 2));
  const text = `${filled} (${title} is ${shown(value)}, in the training ${shown(lowest)} to ${shown(highest)})`;
  return [{ level: far !== null && value > far * highest ? "unfit" : "doubtful", kind: name.replaceAll("_", "-"), text }];
}

function* geometry(spacing) {
  const shown = spacing.map((side) => digits(side, 3)).join(" x ");
  const [low, high] = extremes(spacing);
  if (low < SPACINGS[0] || high > SPACINGS[1]) yield { level: "unfit", kind: "spacing", text: `voxels of ${shown} mm, which no scanner makes; correct the spacing and its unit` };
  else if (low < PLAUSIBLE[0] || high > PLAUSIBLE[1]) yield { level: "doubtful", kind: "spacing", text: `voxels of ${shown} mm are unlikely; check the spacing and its unit` };
}

function emptiness(data) {
  const [low, high] = extremes(data);
  if (low === high) return { level: "unfit", kind: "constant", text: `all values are ${digits(low)}, so there is nothing to restore; give another image` };
  const share = data.reduce((count, value) => count + (value !== low), 0) / data.length;
  if (share >= NEARLY_EMPTY) return null;
  return { level: "unfit", kind: "empty", text: `all but ${digits(100 * share, 2)} % of the values are ${digits(low)}; give an image with content` };
}

function* ofValues(volume, stack, task) {
  const [lowest, highest] = task.rules.value_limits.map((limit, at) => limit ?? (at ? Infinity : -Infinity));
  let [low, high] = extremes(volume.data);
  if (low < lowest) low = extremes(volume.data.filter((value) => value > low))[0]; // the lowest of all may be padding
  if (low < lowest || high > highest) yield { level: "unfit", kind: "impossible-values", text: `values from ${digits(low)} to ${digits(high)}, which ${task.rules.title} cannot have; correct their slope and intercept` };
  const strange = MODALITIES[task.modality].strange(volume, task.rules);
  if (strange) yield strange;
  const labels = labelsOf(stack.spread(), stack.width);
  if (labels) yield { level: "unfit", kind: "label-map", text: `${labels} different whole values in uniform regions are labels; give the image` };
}

// Number of labels, 0 for an image: few whole values, equal in most neighbouring pixels.
function labelsOf(slices, width) {
  const different = new Set();
  for (const slice of slices)
    for (const value of slice) {
      if (!Number.isInteger(value)) return 0;
      different.add(value);
      if (different.size > LABELS) return 0;
    }
  const background = extremes(different)[0];
  let [alike, count] = [0, 0];
  for (const slice of slices)
    for (let place = 0; place + 1 < slice.length; place++) {
      const last = place % width === width - 1;
      if (last || slice[place] === background || slice[place + 1] === background) continue;
      count++;
      alike += slice[place] === slice[place + 1];
    }
  return count && alike / count > ALIKE ? different.size : 0;
}
