// Voxels without a value: NaN outside the body is filled, NaN inside it is refused.

import { Refusal, digits } from "./refusal.js";

const SHORT = 8; // axes of fewer voxels have no inside

// {data, missing}: the filled values, and how many voxels were NaN.
export function fillMissing(data, grid, name, warnings) {
  let missing = 0;
  let low = Infinity;
  let high = -Infinity;
  for (const value of data) {
    if (Number.isNaN(value)) missing++;
    else {
      if (value < low) low = value;
      if (value > high) high = value;
    }
  }
  if (!missing || missing === data.length || low === -Infinity || high === Infinity) return { data, missing: 0 };
  const inside = firstInside(data, grid, missing);
  if (inside) throw new Refusal(`${name}: voxels inside the image are not finite (NaN), the first at (${inside.join(", ")}); only NaN that reaches the border is filled, replace the others`);
  const value = low <= 0 && high >= 0 ? 0 : low;
  warnings.push(`${name}: ${missing} voxels without a value (NaN, outside the body) were set to ${digits(value)}`);
  return { data: data.map((number) => (Number.isNaN(number) ? value : number)), missing };
}

// Spreads over `missing` NaN from the border, also across corners, and returns a voxel that is not reached.
function firstInside(data, [nx, ny, nz], missing) {
  const reached = new Uint8Array(data.length);
  const waiting = new Int32Array(missing); // each is reached once
  let count = 0;
  const reach = (x, y, z) => {
    const place = x + nx * (y + ny * z);
    if (reached[place] || !Number.isNaN(data[place])) return;
    reached[place] = 1;
    waiting[count++] = place;
  };
  const least = Math.min(SHORT, Math.max(nx, ny, nz));
  for (let z = 0; z < nz; z++)
    for (let y = 0; y < ny; y++)
      for (let x = 0; x < nx; x++) {
        const atBorder = (n, place) => n >= least && (place === 0 || place === n - 1);
        if (atBorder(nx, x) || atBorder(ny, y) || atBorder(nz, z)) reach(x, y, z);
      }
  while (count) {
    const [x, y, z] = indicesOf(waiting[--count], [nx, ny]);
    for (let k = Math.max(0, z - 1); k <= Math.min(nz - 1, z + 1); k++)
      for (let j = Math.max(0, y - 1); j <= Math.min(ny - 1, y + 1); j++) for (let i = Math.max(0, x - 1); i <= Math.min(nx - 1, x + 1); i++) reach(i, j, k);
  }
  const left = data.findIndex((value, place) => Number.isNaN(value) && !reached[place]);
  return left < 0 ? null : indicesOf(left, [nx, ny]);
}

// Indices of the voxel at a place in the order of the file.
export function indicesOf(place, [nx, ny]) {
  return [place % nx, Math.floor(place / nx) % ny, Math.floor(place / nx / ny)];
}
