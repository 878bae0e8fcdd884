// The form that queues a job for the chosen scan.

import { post } from "./api.js";
import { byId, element } from "./words.js";

const PLANES = { auto: "as in the file", axial: "axial", coronal: "coronal", sagittal: "sagittal" };

export class Options {
  constructor(state, { started, failed }) {
    this.state = state;
    this.scan = null;
    fill("device", state.device.choices, (name) => (name === "auto" ? `auto (${state.device.name})` : name));
    byId("device").disabled = state.device.choices.length < 3;
    byId("report").addEventListener("change", (event) => {
      byId("uncertainty").disabled = !event.target.checked;
      if (!event.target.checked) byId("uncertainty").value = "none";
    });
    byId("task").addEventListener("change", async (event) => {
      try {
        await post(`/api/scans/${this.scan.id}`, { task: event.target.value });
      } catch (error) {
        failed(error);
        this.show(this.scan, true);
      }
    });
    byId("options").addEventListener("submit", async (event) => {
      event.preventDefault();
      byId("start").disabled = true;
      try {
        started(await post("/api/jobs", this.values()));
      } catch (error) {
        failed(error);
      } finally {
        byId("start").disabled = !this.ready;
      }
    });
  }

  get ready() {
    return this.scan?.state === "ready" && Boolean(this.scan.task);
  }

  // Shows what can be chosen for a scan; what was chosen stays where it still can be.
  show(scan, afresh = false) {
    const other = afresh || scan?.id !== this.scan?.id || scan?.task !== this.scan?.task;
    this.scan = scan;
    byId("options").hidden = !scan;
    byId("choose-first").hidden = Boolean(scan);
    if (!scan) return;
    byId("chosen").textContent = scan.name;
    byId("start").disabled = !this.ready;
    byId("task").disabled = scan.state === "looking";
    if (!other) return;
    const tasks = this.state.tasks;
    fill("task", tasks.map((task) => task.name), (name) => tasks.find((task) => task.name === name).title);
    if (!scan.task) byId("task").prepend(element("option", { value: "", text: "choose what it is", disabled: true }));
    byId("task").value = scan.task ?? "";
    fill("weights", tasks.find((task) => task.name === scan.task)?.weights ?? [], (name) => name);
    fill("plane", scan.planes, (name) => PLANES[name] ?? name);
    byId("weights").disabled = !scan.task;
    byId("plane").disabled = scan.planes.length < 2;
  }

  values() {
    const strength = byId("strength").value;
    const uncertainty = byId("uncertainty").value;
    return {
      scan: this.scan.id,
      task: this.scan.task ?? "auto",
      weights: byId("weights").value || null,
      plane: byId("plane").value || "auto",
      device: byId("device").value,
      strength: strength === "" ? null : Number(strength),
      report: byId("report").checked,
      uncertainty: byId("report").checked ? uncertainty : null,
    };
  }
}

function fill(id, names, text) {
  byId(id).replaceChildren(...names.map((name) => element("option", { value: name, text: text(name) })));
}
