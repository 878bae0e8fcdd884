// Headers of NIfTI-1 and NIfTI-2, checked before any voxel is read.

import { checkSpacing, checkedAffine, lengthsOf, qformOf } from "./affine.js";
import { Refusal, digits } from "./refusal.js";

// Offsets in bytes, and the kinds of number, of the fields that are read or written.
const FIELDS = {
  348: {
    dim: [40, "Int16"], intent_code: [68, "Int16"], datatype: [70, "Int16"], bitpix: [72, "Int16"],
    pixdim: [76, "Float32"], vox_offset: [108, "Float32"], scl_slope: [112, "Float32"], scl_inter: [116, "Float32"],
    xyzt_units: [123, "Uint8"], cal_max: [124, "Float32"], cal_min: [128, "Float32"], qform_code: [252, "Int16"],
    sform_code: [254, "Int16"], quatern: [256, "Float32"], qoffset: [268, "Float32"], srow: [280, "Float32"], magic: 344,
  },
  540: {
    dim: [16, "BigInt64"], intent_code: [504, "Int32"], datatype: [12, "Int16"], bitpix: [14, "Int16"],
    pixdim: [104, "Float64"], vox_offset: [168, "BigInt64"], scl_slope: [176, "Float64"], scl_inter: [184, "Float64"],
    xyzt_units: [500, "Int32"], cal_max: [192, "Float64"], cal_min: [200, "Float64"], qform_code: [344, "Int32"],
    sform_code: [348, "Int32"], quatern: [352, "Float64"], qoffset: [376, "Float64"], srow: [400, "Float64"], magic: 4,
  },
};
const BYTES = { Uint8: 1, Int16: 2, Int32: 4, Float32: 4, Float64: 8, BigInt64: 8 };
export const TYPES = {
  2: Uint8Array, 4: Int16Array, 8: Int32Array, 16: Float32Array, 64: Float64Array, 256: Int8Array, 512: Uint16Array,
  768: Uint32Array, 1024: BigInt64Array, 1280: BigUint64Array,
};
const REFUSED = { 1: "binary", 32: "complex", 1792: "complex", 2048: "complex", 128: "colour", 2304: "colour", 1536: "128-bit" };
const VECTORS = { 1005: "symmetric matrices", 1006: "displacements", 1007: "vectors", 2003: "colours" };
const MILLIMETRES = { 1: 1000, 3: 0.001 }; // unit codes metre and micrometre
const MOST_VOXELS = 128 * 2 ** 20; // the memory of a tab
const MOST_OFFSET = 2 ** 30;

export const LONGEST_HEADER = 540;

export class Header {
  constructor(bytes, name) {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const orders = [true, false].filter((little) => bytes.length >= 348 && view.getInt32(0, little) in FIELDS);
    const size = orders.length ? view.getInt32(0, orders[0]) : 0;
    if (!size || bytes.length < size) throw new Refusal(`${name}: not a NIfTI file; give a .nii or .nii.gz image`);
    this.name = name;
    this.little = orders[0];
    this.fields = FIELDS[size];
    this.bytes = bytes.slice(0, size);
    this.view = new DataView(this.bytes.buffer);
  }

  get(field, index = 0) {
    const [offset, kind] = this.fields[field];
    return Number(this.view[`get${kind}`](offset + index * BYTES[kind], this.little));
  }

  all(field, count, first = 0) {
    return Array.from({ length: count }, (_, index) => this.get(field, first + index));
  }

  set(field, value) {
    const [offset, kind] = this.fields[field];
    this.view[`set${kind}`](offset, kind === "BigInt64" ? BigInt(value) : value, this.little);
  }

  get magic() {
    return String.fromCharCode(...this.bytes.subarray(this.fields.magic, this.fields.magic + 3));
  }
}

// What a header says about the voxels of one volume.
export function layoutOf(header) {
  const { name } = header;
  const damaged = (why) => new Refusal(`${name}: the header is damaged (${why}); export the image again`);
  if (/^ni[12]$/.test(header.magic)) throw new Refusal(`${name}: the header of a pair, its voxels are in another file; give a single .nii or .nii.gz`);
  if (!/^n\+[12]$/.test(header.magic)) throw damaged(`magic string ${JSON.stringify(header.magic)}`);
  const axes = header.get("dim");
  if (!(axes >= 1 && axes <= 7)) throw damaged(`${axes} axes, NIfTI has 1 to 7`);
  const shape = header.all("dim", axes, 1);
  const grid = gridOf(shape, header);
  checkNumbers(header, damaged);
  const slopes = slopesOf(header);
  const Type = TYPES[header.get("datatype")];
  const stated = header.get("vox_offset");
  const offset = stated === 0 ? header.bytes.length + 4 : stated;
  if (!(offset >= header.bytes.length + 4 && offset <= MOST_OFFSET)) throw damaged(`vox_offset ${offset}`);
  const voxels = grid[0] * grid[1] * grid[2];
  if (voxels > MOST_VOXELS) throw new Refusal(`${name}: ${voxels} voxels are too many for a page; restore it with the command restore-rwkv restore`);
  const affine = affineOf(header);
  const start = Math.floor(offset);
  return { shape, grid, Type, ...slopes, affine, spacing: lengthsOf(affine), offset: start, size: start + voxels * Type.BYTES_PER_ELEMENT };
}

function gridOf(shape, header) {
  const { name } = header;
  const text = `(${shape.join(", ")})`;
  if (shape.some((length) => length < 1)) throw new Refusal(`${name}: an axis has no voxels, shape ${text}; export the image again`);
  if (shape.length < 2) throw new Refusal(`${name}: shape ${text} is not an image; give 2 or 3 axes`);
  const vectors = VECTORS[header.get("intent_code")];
  if (shape.slice(3).some((length) => length > 1)) {
    if (vectors) throw new Refusal(`${name}: ${vectors} are not supported; save one real value for each voxel`);
    throw new Refusal(`${name}: the image has ${shape.length} axes, shape ${text}; save one 3-D volume per time point, or use the command restore-rwkv restore`);
  }
  return [...shape, 1].slice(0, 3);
}

function checkNumbers(header, damaged) {
  const { name } = header;
  const code = header.get("datatype");
  const Type = TYPES[code];
  if (code in REFUSED) throw new Refusal(`${name}: ${REFUSED[code]} voxels are not supported; save one real value for each voxel`);
  if (!Type) throw damaged(`data type ${code}`);
  const bits = header.get("bitpix");
  if (bits !== 0 && bits !== 8 * Type.BYTES_PER_ELEMENT) throw damaged(`${bits} bits a voxel, but the data type has ${8 * Type.BYTES_PER_ELEMENT}`);
  for (const form of ["qform_code", "sform_code"]) {
    const found = header.get(form);
    if (!(found >= 0 && found <= 5)) throw new Refusal(`${name}: ${form} is ${found}; give 0 to 5`);
  }
}

// A slope that is 0 or NaN means none.
function slopesOf(header) {
  const slope = header.get("scl_slope");
  const inter = header.get("scl_inter");
  if (Math.abs(slope) === Infinity) throw new Refusal(`${header.name}: the slope is infinite; fix scl_slope`);
  if (!slope) return { slope: 1, inter: 0 };
  if (!Number.isFinite(inter)) throw new Refusal(`${header.name}: the slope is valid but the intercept is ${inter}; fix scl_slope and scl_inter`);
  return { slope, inter };
}

// Voxel indices to mm in RAS+: sform, else qform, else guessed from the spacing.
function affineOf(header) {
  const { name } = header;
  const unit = MILLIMETRES[header.get("xyzt_units") & 7] ?? 1;
  const sides = header.all("pixdim", 3, 1);
  const count = Math.min(3, header.get("dim"));
  sides.slice(0, count).forEach((side, axis) => {
    if (!side || !Number.isFinite(side)) throw new Refusal(`${name}: spacing is ${digits(side)} mm on axis ${axis}; fix pixdim`);
  });
  const lengths = sides.map((side) => Math.abs(side) || 1); // axes that are not there may have 0
  checkSpacing(lengths.slice(0, count).map((side) => side * unit), name);
  let rows;
  if (header.get("sform_code")) rows = [0, 4, 8].map((first) => header.all("srow", 4, first));
  else if (header.get("qform_code")) rows = qformOf(header.all("quatern", 3), header.all("qoffset", 3), lengths, header.get("pixdim"), name);
  else {
    const grid = [...header.all("dim", header.get("dim"), 1), 1, 1].slice(0, 3);
    const steps = [-lengths[0], lengths[1], lengths[2]];
    rows = steps.map((step, axis) => [0, 1, 2].map((other) => (other === axis ? step : 0)).concat((-step * (grid[axis] - 1)) / 2));
  }
  return checkedAffine(rows.map((row) => row.map((value) => value * unit)), name);
}
