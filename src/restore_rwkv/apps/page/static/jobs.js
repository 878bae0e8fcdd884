// The queue: one row for each job, the newest first, changed in place so that focus stays.

import { remove } from "./api.js";
import { byId, element, progress } from "./words.js";

export class Jobs {
  constructor({ show, said, failed, gone }) {
    this.jobs = new Map();
    this.rows = new Map();
    Object.assign(this, { show, said, failed, gone });
  }

  // All jobs there are: those that were forgotten while nobody listened go.
  replace(jobs) {
    const ids = new Set(jobs.map((job) => job.id));
    for (const id of [...this.jobs.keys()]) if (!ids.has(id)) this.drop(id);
    for (const job of jobs) this.put(job);
  }

  put(job) {
    if (job.state === "forgotten") return this.drop(job.id);
    const before = this.jobs.get(job.id);
    this.jobs.set(job.id, job);
    if (!this.rows.has(job.id)) this.add(job);
    this.draw(job);
    if (before && before.state !== job.state && job.state !== "running") this.said(`${job.name}: ${progress(job)}`);
  }

  drop(id) {
    const row = this.rows.get(id);
    if (row?.row.contains(document.activeElement)) byId("viewer").focus();
    row?.row.remove();
    this.rows.delete(id);
    this.jobs.delete(id);
    byId("no-jobs").hidden = this.jobs.size > 0;
    this.gone(id);
  }

  add(job) {
    const bar = element("progress", { "aria-label": `Progress of ${job.name}` });
    const text = element("span", { class: "about" });
    const open = element("button", { type: "button", "aria-label": `Show ${job.name}`, text: "Show", onclick: () => this.show(this.jobs.get(job.id)) });
    const end = element("button", { type: "button", class: "plain", onclick: () => this.end(job.id) });
    const row = element("li", { "data-job": job.id }, element("span", { class: "name", text: job.name }), text, bar, element("span", { class: "buttons" }, open, end));
    this.rows.set(job.id, { row, bar, text, open, end });
    const next = [...byId("jobs").children].find((other) => Number(other.dataset.job) < job.id);
    byId("jobs").insertBefore(row, next ?? null);
    byId("no-jobs").hidden = true;
  }

  draw(job) {
    const { row, bar, text, open, end } = this.rows.get(job.id);
    const active = job.state === "waiting" || job.state === "running";
    row.dataset.state = job.state;
    text.textContent = progress(job);
    bar.hidden = job.state !== "running";
    if (job.all) {
      bar.max = job.all;
      bar.value = job.done;
    } else bar.removeAttribute("value");
    open.hidden = job.state !== "done";
    end.textContent = active ? "Cancel" : "Forget";
    end.setAttribute("aria-label", `${end.textContent} ${job.name}`);
  }

  mark(id) {
    for (const [key, { row }] of this.rows) row.classList.toggle("shown", key === id);
  }

  async end(id) {
    const button = this.rows.get(id).end;
    button.disabled = true;
    try {
      const job = await remove(`/api/jobs/${id}`);
      if (job) this.put(job);
      else this.drop(id);
    } catch (error) {
      this.failed(error);
    } finally {
      button.disabled = false;
    }
  }
}
