// NIfTI in and out. The header of the output is that of the input, byte by byte, but for the number
// format, the display range and the place of the first voxel.

import { unpacked } from "./gzip.js";
import { fillMissing, indicesOf } from "./missing.js";
import { Header, LONGEST_HEADER, layoutOf } from "./nifti_header.js";
import { Refusal } from "./refusal.js";

const FLOAT32 = 16;

// Reads a file (a Blob with a name): {name, header, extensions, shape, grid, affine, spacing, data, missing, warnings}.
// `data` is a Float32Array in the order of the file: the first axis runs fastest.
export async function readNifti(file) {
  const warnings = [];
  let header;
  let layout;
  const bytes = await unpacked(file, LONGEST_HEADER, (start) => {
    header = new Header(start, file.name);
    layout = layoutOf(header);
    return layout.size;
  }, warnings);
  if (!header.get("qform_code") && !header.get("sform_code")) warnings.push(`${file.name}: no orientation in the header; planes are guessed`);
  const extensions = soundExtensions(bytes.slice(header.bytes.length, layout.offset), header, warnings);
  const filled = fillMissing(valuesOf(bytes, layout, header), layout.grid, file.name, warnings);
  requireFinite(filled.data, layout.grid, file.name);
  return { name: file.name, header, extensions, ...layout, ...filled, warnings };
}

// The parts of a single file with other values, float32, in the byte order of the header.
export function niftiParts({ header, extensions }, data) {
  const out = new Header(header.bytes, header.name);
  out.set("datatype", FLOAT32);
  out.set("bitpix", 32);
  out.set("scl_slope", 1);
  out.set("scl_inter", 0);
  out.set("cal_max", 0);
  out.set("cal_min", 0);
  out.set("vox_offset", out.bytes.length + extensions.length);
  return [out.bytes, extensions, out.little ? data : swapped(new Uint8Array(data.slice().buffer), 4)];
}

function valuesOf(bytes, { Type, grid, offset, slope, inter }, header) {
  const count = grid[0] * grid[1] * grid[2];
  const width = Type.BYTES_PER_ELEMENT;
  const own = bytes.slice(offset, offset + count * width); // aligned
  if (!header.little) swapped(own, width);
  const numbers = new Type(own.buffer);
  if (slope === 1 && inter === 0 && Type === Float32Array) return numbers;
  const data = new Float32Array(count);
  const same = slope === 1 && inter === 0;
  for (let place = 0; place < count; place++) data[place] = same ? Number(numbers[place]) : Number(numbers[place]) * slope + inter;
  return data;
}

function swapped(bytes, width) {
  for (let first = 0; width > 1 && first < bytes.length; first += width) bytes.subarray(first, first + width).reverse();
  return bytes;
}

// Extensions as they are, or none where one claims more than there is.
function soundExtensions(bytes, header, warnings) {
  const view = new DataView(bytes.buffer);
  let place = 4;
  let size = bytes[0] ? 8 : 0;
  while (size >= 8 && place + 4 <= bytes.length) {
    size = view.getInt32(place, header.little);
    place += size;
    if (place > bytes.length) {
      warnings.push(`${header.name}: damaged extensions of the header were left out`);
      return new Uint8Array(4);
    }
  }
  return bytes;
}

function requireFinite(data, grid, name) {
  const first = data.findIndex((value) => !Number.isFinite(value));
  if (first < 0) return;
  const count = data.reduce((sum, value) => sum + !Number.isFinite(value), 0);
  throw new Refusal(`${name}: ${count} voxels are not finite, the first at (${indicesOf(first, grid).join(", ")}); replace NaN and infinity`);
}
