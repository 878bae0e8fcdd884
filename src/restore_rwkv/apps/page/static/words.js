// Numbers and answers in plain words.

export const byId = (id) => document.getElementById(id);

export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key === "text") made.textContent = value;
    else if (key.startsWith("on")) made.addEventListener(key.slice(2), value);
    else if (value === true) made.setAttribute(key, "");
    else if (value !== false && value != null) made.setAttribute(key, value);
  }
  made.append(...children);
  return made;
}

export function bytes(count) {
  if (count == null) return "unknown";
  if (count < 1e6) return `${Math.max(1, Math.round(count / 1e3))} kB`;
  if (count < 1e9) return `${Math.round(count / 1e6)} MB`;
  return `${(count / 1e9).toFixed(1)} GB`;
}

export function duration(seconds) {
  if (seconds == null) return "unknown";
  if (seconds < 1.5) return "1 s";
  if (seconds < 90) return `${Math.round(seconds)} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}

// A voxel's value with the fewest digits that tell it from every other float32.
export function value(number) {
  if (!Number.isFinite(number)) return String(number);
  let digits = 1;
  while (digits < 9 && Math.fround(Number(number.toPrecision(digits))) !== Math.fround(number)) digits++;
  return String(Number(number.toPrecision(digits))).replaceAll("-", "\u2212");
}

export function signed(number) {
  return number > 0 ? `+${value(number)}` : value(number);
}

const FITS = {
  fit: "suits the weights",
  doubtful: "may not suit the weights",
  unfit: "does not suit the weights",
};

export const fit = (outcome) => FITS[outcome] ?? "";

const STAGES = { reading: "Reading", restoring: "Restoring", writing: "Writing" };

export function progress(job) {
  if (job.state === "waiting") return "Waiting";
  if (job.state === "done") return `Done${job.outputs.seconds == null ? "" : ` in ${duration(job.outputs.seconds)}`}`;
  if (job.state === "cancelled") return "Cancelled";
  if (job.state === "failed") return `Failed: ${job.error ?? "no reason is known"}`;
  // The library counts slices as soon as the weights are loaded, and names no stage then.
  const name = job.stage === "loading weights" && job.all ? "restoring" : job.stage;
  const stage = STAGES[name] ?? (name ? name[0].toUpperCase() + name.slice(1) : "Starting");
  const count = job.all ? `, ${job.done} of ${job.all}` : "";
  const left = job.seconds_left == null ? "" : `, about ${duration(job.seconds_left)} left`;
  return `${stage}${count}${left}`;
}
