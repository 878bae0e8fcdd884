// Grids in space: checks, orientation of the axes, and the axis across the slices.
// An affine is its first three rows: voxel indices (i, j, k, 1) to mm in RAS+.

import { Refusal, digits } from "./refusal.js";

const FINEST = 1e-5; // mm
const COARSEST = 1e5;
const FARTHEST = 1e7;
const QUATERNION = 3.5762787e-7; // below 0 by so much, a squared component is 0 that was rounded
const NORMALS = { sagittal: 0, coronal: 1, axial: 2 };

export function lengthsOf(rows) {
  return [0, 1, 2].map((axis) => Math.hypot(...rows.map((row) => row[axis])));
}

export function checkSpacing(lengths, name) {
  lengths.forEach((length, axis) => {
    if (!(length >= FINEST && length <= COARSEST)) throw new Refusal(`${name}: spacing is ${digits(length)} mm on axis ${axis}, which no scanner makes; correct the header`);
  });
}

export function checkedAffine(rows, name) {
  if (!rows.flat().every(Number.isFinite)) throw new Refusal(`${name}: the affine holds NaN or infinity; correct the header`);
  const lengths = lengthsOf(rows);
  const unit = rows.map((row) => lengths.map((length, axis) => row[axis] / length));
  if (lengths.includes(0) || Math.abs(determinant(unit)) < 1e-6) throw new Refusal(`${name}: the affine is singular; correct the header`);
  checkSpacing(lengths, name);
  const far = Math.max(...rows.map((row) => Math.abs(row[3])));
  if (far > FARTHEST) throw new Refusal(`${name}: its first voxel is ${digits(far)} mm from the origin, which no scanner makes; correct the header`);
  return rows;
}

export function qformOf([b, c, d], offset, sides, first, name) {
  const rest = 1 - b * b - c * c - d * d;
  if (!(rest >= -QUATERNION)) throw new Refusal(`${name}: the quaternion is longer than 1; fix the qform`);
  const a = Math.abs(rest) < QUATERNION ? 0 : Math.sqrt(rest);
  const scale = 2 / (a * a + b * b + c * c + d * d);
  const rotation = [
    [1 - scale * (c * c + d * d), scale * (b * c - a * d), scale * (b * d + a * c)],
    [scale * (b * c + a * d), 1 - scale * (b * b + d * d), scale * (c * d - a * b)],
    [scale * (b * d - a * c), scale * (c * d + a * b), 1 - scale * (b * b + c * c)],
  ];
  const steps = [sides[0], sides[1], first === -1 ? -sides[2] : sides[2]];
  return rotation.map((row, at) => [...row.map((value, axis) => value * steps[axis]), offset[at]]);
}

// The array axis that is perpendicular to an anatomical plane, or closest to that.
export function planeAxis(rows, plane) {
  const closest = rotationOf(rows);
  const strongest = (axis) => Math.max(...closest.map((row) => row[axis] ** 2));
  const strength = [0, 1, 2].map(strongest);
  const order = [0, 1, 2].sort((one, other) => strength[other] - strength[one] || one - other);
  const worlds = [];
  const left = closest.map((row) => [...row]);
  for (const axis of order) {
    const sizes = left.map((row) => Math.abs(row[axis]));
    worlds[axis] = sizes.indexOf(Math.max(...sizes));
    left[worlds[axis]] = [0, 0, 0];
  }
  return worlds.indexOf(NORMALS[plane]);
}

// The array axis across the slices of a plane; "auto" is the plane of the task.
export function sliceAxis(volume, task, plane = "auto") {
  if (plane !== "auto") return planeAxis(volume.affine, plane);
  if (volume.grid.includes(1)) return volume.grid.lastIndexOf(1);
  if (task.plane !== "acquisition") return planeAxis(volume.affine, task.plane);
  const most = 0.99 * Math.max(...volume.spacing);
  return volume.spacing.findLastIndex((side) => side >= most);
}

// The rotation nearest to the axes of a grid, by Newton's iteration for the polar decomposition.
function rotationOf(rows) {
  const lengths = lengthsOf(rows);
  let matrix = rows.map((row) => lengths.map((length, axis) => row[axis] / length));
  for (let step = 0; step < 50; step++) {
    const inverse = inverted(matrix);
    const next = matrix.map((row, i) => row.map((value, j) => (value + inverse[j][i]) / 2));
    const change = Math.max(...next.flatMap((row, i) => row.map((value, j) => Math.abs(value - matrix[i][j]))));
    matrix = next;
    if (change < 1e-14) break;
  }
  return matrix;
}

function determinant([[a, b, c], [d, e, f], [g, h, i]]) {
  return a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g);
}

function inverted(matrix) {
  const [[a, b, c], [d, e, f], [g, h, i]] = matrix;
  const size = determinant(matrix);
  const adjugate = [
    [e * i - f * h, c * h - b * i, b * f - c * e],
    [f * g - d * i, a * i - c * g, c * d - a * f],
    [d * h - e * g, b * g - a * h, a * e - b * d],
  ];
  return adjugate.map((row) => row.map((value) => value / size));
}
