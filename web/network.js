// The exported network, run by ONNX Runtime in WebAssembly with one thread, or by WebGPU.

import { Refusal } from "./refusal.js";

const WASM = "ort.wasm.min.mjs";
const WEBGPU = "ort.webgpu.min.mjs";

// Opens a network, and resolves to a function from an image (Float32Array, height x width) to one.
export async function openNetwork(model, folder, { noiseLevel, webgpu = false }) {
  const runtime = await import(new URL(webgpu ? WEBGPU : WASM, folder).href).catch((error) => {
    throw new Refusal(`ONNX Runtime: cannot be loaded (${error.message}); check the connection, and load the page again`);
  });
  runtime.env.wasm.wasmPaths = folder;
  runtime.env.wasm.numThreads = 1; // more need headers that a plain file server does not send
  runtime.env.wasm.proxy = false;
  runtime.env.logLevel = "error";
  const session = await runtime.InferenceSession.create(model, { executionProviders: [webgpu ? "webgpu" : "wasm"], enableMemPattern: false });
  return async (image, height, width, level) => {
    const feed = { image: new runtime.Tensor("float32", image, [1, 1, height, width]) };
    if (noiseLevel) feed.noise_level = new runtime.Tensor("float32", Float32Array.of(level ?? 0), [1]);
    try {
      const { restored } = await session.run(feed);
      return Float32Array.from(restored.data);
    } catch (error) {
      if (/alloc|memory|out of bounds/i.test(String(error?.message ?? error))) throw new Refusal(`slices of ${height} x ${width} pixels need more memory than this browser gives; close other tabs, or use the command restore-rwkv restore`);
      throw error;
    }
  };
}
