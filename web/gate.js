// What WebGPU has to pass on each visit: one slice, in WebGPU as in WebAssembly.

const MOST = 1e-3; // of the range

// The largest difference of two images, over the range of the first.
export function apart(one, other) {
  let [low, high, most] = [Infinity, -Infinity, 0];
  one.forEach((value, place) => {
    low = Math.min(low, value);
    high = Math.max(high, value);
    const difference = Math.abs(value - other[place]);
    most = difference <= most || Number.isNaN(most) ? most : difference; // NaN stays
  });
  return Number.isNaN(most) ? Infinity : most / (high - low || 1);
}

// Why a network may not be used in place of a trusted one; null if it may.
export async function refusal(trusted, open, image, ...size) {
  try {
    const one = await trusted(image, ...size);
    const found = apart(one, await (await open())(image, ...size));
    return found <= MOST ? null : `differs by ${found.toExponential(1)} of the range`;
  } catch (error) {
    return `cannot run it (${String(error?.message ?? error).slice(0, 200)})`;
  }
}
