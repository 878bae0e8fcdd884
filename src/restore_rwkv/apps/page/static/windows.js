// Which values are black and which are white.

// Width and centre in HU, as viewers of radiology have them.
const CT = [
  ["Brain", 80, 40],
  ["Soft tissue", 400, 40],
  ["Lung", 1500, -600],
  ["Bone", 1800, 400],
];
const SAMPLES = 200000;

// The windows for a scan: [{name, low, high, inverted}], the one to begin with first.
export function windowsFor(outputs, values) {
  const at = percentiles(values);
  const whole = { name: "All values", low: at(0), high: at(1), inverted: false };
  if (outputs.modality === "CT") {
    const presets = CT.map(([name, width, centre]) => ({ name, low: centre - width / 2, high: centre + width / 2, inverted: false }));
    const [brain, soft, ...others] = presets;
    return distinct([soft, brain, ...others, whole]);
  }
  if (outputs.modality === "PT") {
    const perUnit = String(outputs.unit ?? "").startsWith("SUV") ? 1 : outputs.suv_per_unit;
    const dark = { name: "Up to the 99.5th percentile", low: 0, high: at(0.995), inverted: true };
    const suv = perUnit ? [{ name: "SUV 0 to 5", low: 0, high: 5 / perUnit, inverted: true }, { name: "SUV 0 to 10", low: 0, high: 10 / perUnit, inverted: true }] : [];
    return distinct([...suv, dark, whole]);
  }
  return distinct([
    { name: "1st to 99th percentile", low: at(0.01), high: at(0.99), inverted: false },
    { name: "5th to 95th percentile", low: at(0.05), high: at(0.95), inverted: false },
    whole,
  ]);
}

// Half the range of differences that is shown: nearly all of them lie within.
export function differenceLimit(values) {
  const limit = percentiles(values, Math.abs)(0.998);
  return limit > 0 ? limit : 1;
}

function percentiles(values, change = (number) => number) {
  const step = Math.max(1, Math.floor(values.length / SAMPLES));
  const taken = [];
  for (let place = 0; place < values.length; place += step) {
    const number = change(values[place]);
    if (Number.isFinite(number)) taken.push(number);
  }
  const sorted = Float64Array.from(taken).sort();
  return (share) => (sorted.length ? sorted[Math.round(share * (sorted.length - 1))] : 0);
}

function distinct(windows) {
  const usable = windows.filter(({ low, high }) => high > low);
  return usable.length ? usable : [{ ...windows.at(-1), high: windows.at(-1).low + 1 }];
}
