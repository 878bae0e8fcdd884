// gzip by the browser's own streams, bounded by what the header of the image declares.

import { Refusal } from "./refusal.js";

// The bytes of a file, unpacked if its first bytes say that it is gzip.
// `sizeOf(start)` gets the first `least` bytes, and returns how many bytes there have to be in all.
export async function unpacked(file, least, sizeOf, warnings) {
  const magic = new Uint8Array(await file.slice(0, 2).arrayBuffer());
  const packed = magic[0] === 0x1f && magic[1] === 0x8b;
  const stream = packed ? file.stream().pipeThrough(new DecompressionStream("gzip")) : file.stream();
  const reader = stream.getReader();
  const next = async () => {
    try {
      return (await reader.read()).value;
    } catch (error) {
      await file.slice(0, 1).arrayBuffer(); // of a file that cannot be read any more, this says so
      if (!packed) throw error;
      throw new Refusal(`${file.name}: the gzip data is damaged, truncated or in several parts; copy it again, or unpack it`);
    }
  };
  try {
    const { start, count } = await beginning(next, least);
    const size = sizeOf(start.subarray(0, count));
    return await filled(next, start, count, size, { file, packed, warnings });
  } finally {
    reader.cancel().catch(() => {}); // a refused file is not read to its end
  }
}

async function beginning(next, least) {
  const chunks = [];
  let count = 0;
  while (count < least) {
    const chunk = await next();
    if (!chunk) break;
    chunks.push(chunk);
    count += chunk.length;
  }
  const start = new Uint8Array(count);
  let place = 0;
  for (const chunk of chunks) {
    start.set(chunk, place);
    place += chunk.length;
  }
  return { start, count };
}

async function filled(next, start, count, size, { file, packed, warnings }) {
  if (!packed && file.size < size) throw tooShort(file.name, size);
  const bytes = new Uint8Array(size);
  bytes.set(start.subarray(0, size));
  let place = count;
  while (place <= size) {
    const chunk = await next();
    if (!chunk) break;
    if (place < size) bytes.set(chunk.subarray(0, size - place), place);
    place += chunk.length;
  }
  if (place < size) throw tooShort(file.name, size);
  if (place > size && packed) throw new Refusal(`${file.name}: holds more than the ${size} bytes that its header gives; the file is damaged, copy or export it again`);
  if (place > size) warnings.push(`${file.name}: bytes behind the voxels were ignored`);
  return bytes;
}

function tooShort(name, size) {
  return new Refusal(`${name}: holds less than the ${size} bytes that its header gives; the file is truncated or damaged, copy or export it again`);
}

export async function packed(parts) {
  const stream = new Blob(parts).stream().pipeThrough(new CompressionStream("gzip"));
  return new Response(stream).blob();
}
