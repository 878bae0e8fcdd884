// The worker: reads, restores and writes, so that the page stays responsive. The page ends it to cancel.

import { fetched } from "./fetched.js";
import { MODALITIES } from "./modality.js";
import { refusal } from "./gate.js";
import { packed } from "./gzip.js";
import { openNetwork } from "./network.js";
import { niftiParts, readNifti } from "./nifti.js";
import { linesOf, planOf } from "./plan.js";
import { recordOf, sha256 } from "./record.js";
import { Refusal } from "./refusal.js";
import { restored } from "./restore.js";
import { applied } from "./scaling.js";

const RUNTIME = "onnxruntime-web";
const MOST_BYTES = 2 ** 31; // that browsers give at once
const scans = new Map(); // the last file that was read, by its number
const models = new Map();
const networks = new Map();

const tasks = {
  async look({ file, number }) {
    const scan = await read(file);
    scans.clear();
    scans.set(number, scan);
    const { grid, spacing, warnings } = scan.volume;
    return { grid, spacing, warnings };
  },

  async restore({ file, number, task, weights, options, about, webgpu }, tell) {
    tell({ stage: "reading" });
    const { volume, sha256: source } = scans.get(number) ?? (await read(file));
    const plan = planOf(volume, task, weights, options);
    tell({ stage: "loading the network", lines: linesOf(plan) });
    const { network, device } = await chosen(weights, about, webgpu, plan, tell);
    const result = await restored(plan, network, (done, all) => tell({ stage: "restoring", done, all }));
    tell({ stage: "writing" });
    return written(plan, result, { device, about, source });
  },
};

// {volume, sha256} of a file; the browser reads none that has changed since it was chosen.
async function read(file) {
  if (file.size >= MOST_BYTES) throw new Refusal(`${file.name}: is too large for a page; restore it with the command restore-rwkv restore`);
  try {
    return { volume: await readNifti(file), sha256: await sha256(file) };
  } catch (error) {
    if (error.name !== "NotReadableError" && error.name !== "NotFoundError") throw error;
    throw new Refusal(`${file.name}: cannot be read, it was changed or removed since it was chosen, or may not be read; choose it again`);
  }
}

async function written(plan, result, { device, about, source }) {
  const { volume } = plan;
  const difference = result.data.map((value, place) => value - volume.data[place]);
  const stem = volume.name.replace(/\.nii(\.gz)?$/i, "");
  const output = { name: `${stem}-restored.nii.gz`, blob: await packed(niftiParts(volume, result.data)) };
  output.sha256 = await sha256(output.blob);
  return {
    before: new Blob(niftiParts(volume, volume.data)),
    after: new Blob(niftiParts(volume, result.data)),
    difference: new Blob(niftiParts(volume, difference)),
    output,
    stem,
    record: recordOf(plan, result, { about, device, source, output }),
  };
}

// The network in WebAssembly; in WebGPU only where that gives the same for the middle slice of this scan.
async function chosen(weights, about, webgpu, plan, tell) {
  const wasm = await opened(weights, about, false);
  const device = { network: wasm, device: `${RUNTIME} ${about.runtime}, WebAssembly, 1 thread` };
  if (!webgpu) return device;
  tell({ stage: "comparing WebGPU with WebAssembly" });
  const { stack, scaling, level, task } = plan;
  const slice = stack.slice(Math.floor(stack.count / 2));
  const image = applied(MODALITIES[task.modality].without(slice, task), scaling);
  const why = await refusal(wasm, () => opened(weights, about, true), image, stack.height, stack.width, level);
  if (!why) return { network: await opened(weights, about, true), device: `${RUNTIME} ${about.runtime}, WebGPU` };
  plan.warnings.push(`WebGPU of this browser ${why}, so WebAssembly was used`);
  return device;
}

async function opened(weights, about, webgpu) {
  const key = `${weights.name} ${webgpu}`;
  if (!networks.has(key)) {
    const model = await modelOf(weights, about);
    networks.set(key, await openNetwork(model, `${about.base}runtime/`, { noiseLevel: weights.noise_level, webgpu }));
  }
  return networks.get(key);
}

async function modelOf(weights, about) {
  if (models.has(weights.name)) return models.get(weights.name);
  const blob = await fetched(`${about.base}${weights.file}`, weights.name);
  const found = await sha256(blob);
  if (found && found !== weights.file_sha256) throw new Refusal(`${weights.name}: does not match its SHA-256; load the page again without its cache`);
  models.set(weights.name, new Uint8Array(await blob.arrayBuffer()));
  return models.get(weights.name);
}

addEventListener("message", async ({ data: { id, kind, ...request } }) => {
  try {
    postMessage({ id, done: await tasks[kind](request, (progress) => postMessage({ id, progress })) });
  } catch (error) {
    const known = error instanceof Refusal;
    const text = String(error?.message ?? error).replace(/\s+/g, " ");
    const memory = /memory|allocation/i.test(text) ? "the browser has too little memory; close other tabs, or use the command restore-rwkv restore" : `${text}; this is a fault of the page, please report it`;
    postMessage({ id, failed: known ? error.message : memory });
  }
});
