// The record of a restoration, in the form of those that restore-rwkv writes (docs/restoration.schema.json).

export async function sha256(blob) {
  if (!globalThis.crypto?.subtle) return null; // a page that came over plain http from another machine
  const digest = await crypto.subtle.digest("SHA-256", await blob.arrayBuffer());
  return [...new Uint8Array(digest)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

// `about` is what the page says of itself: {notice, software}.
export function recordOf(plan, { seconds, change }, { about, device, source, output }) {
  const { volume, task, weights, stack, noise, fit } = plan;
  return {
    format: "restore-rwkv record 1",
    notice: about.notice,
    modality: task.modality,
    unit: null,
    software: about.software,
    python: "none, in a browser",
    created: new Date().toISOString(),
    warnings: plan.warnings,
    not_for: task.not_for,
    task: task.name,
    weights: weights.file.split("/").at(-1),
    weights_sha256: weights.sha256,
    device,
    slice_axis: plan.axis,
    scale: null,
    scaling: plan.scaling,
    scaling_rule: plan.rule,
    suv_per_unit: plan.suv_per_unit,
    no_suv: plan.no_suv,
    tile: [stack.height, stack.width],
    batch: 1,
    consistency: plan.steps,
    kept: plan.block?.kept ?? null,
    signed: plan.signed,
    ensemble: false,
    turns: 1,
    strength: plan.strength,
    noise_found: noise?.found ?? null,
    noise_reference: noise?.reference ?? null,
    factor: noise ? noise.factor : plan.steps ? (plan.options.factor ?? task.factor) : null,
    factor_from: null,
    no_noise: noise?.assumed ?? null,
    noise_level: plan.level,
    fit,
    change,
    seconds: Number(seconds.toFixed(3)),
    torch: "none, the network ran in ONNX Runtime",
    volumes: 1,
    each_volume: [],
    options: optionsOf(plan.options),
    fidelity: null,
    source: volume.name,
    source_sha256: source,
    source_files: source ? { [volume.name]: source } : {},
    series_number: null,
    series_instance_uid: null,
    sop_instance_uids: [],
    output: output.name,
    output_sha256: output.sha256,
    output_files: output.sha256 ? { [output.name]: output.sha256 } : {},
    output_series_instance_uid: null,
    clipped_voxels: 0,
    dtype: "float32",
    keep_nan: false,
  };
}

function optionsOf({ plane, factor, strength, suv, force }) {
  return { plane, factor, strength, unit: suv ? "SUV" : "auto", force, scaling: "auto", scale: null, consistency: null, ensemble: false };
}
