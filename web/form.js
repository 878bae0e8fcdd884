// The form: task, weights and options of the chosen scan.

import { byId, element } from "./page/words.js";

const PLANES = { auto: "as in the file", axial: "axial", coronal: "coronal", sagittal: "sagittal" };
const CHOOSE = "";

export class Form {
  constructor(about, restore) {
    this.about = about;
    this.tasks = Object.values(about.tasks);
    fill("plane", Object.keys(PLANES), (name) => PLANES[name]);
    show("of-gpu", about.webgpu && Boolean(navigator.gpu));
    byId("task").addEventListener("change", () => this.task());
    byId("options").addEventListener("submit", (event) => {
      event.preventDefault();
      restore(this.values());
    });
  }

  // Shows the form for a scan, whose file does not say what it is.
  scan(name, task) {
    byId("options").hidden = false;
    byId("choose-first").hidden = true;
    byId("chosen").textContent = name;
    fill("task", this.tasks.map((each) => each.name), (each) => this.about.tasks[each].title);
    byId("task").prepend(element("option", { value: CHOOSE, text: "choose what it is", disabled: true }));
    byId("task").value = task ?? CHOOSE;
    for (const id of ["factor", "strength"]) byId(id).value = "";
    for (const id of ["suv", "force"]) byId(id).checked = false;
    byId("plane").value = "auto";
    this.task();
  }

  hide() {
    byId("options").hidden = true;
    byId("choose-first").hidden = false;
  }

  task() {
    const task = this.about.tasks[byId("task").value];
    byId("start").disabled = !task;
    const serving = Object.values(this.about.weights).filter(({ scaling }) => task && task.name in scaling);
    fill("weights", serving.map(({ name }) => name), (name) => name);
    if (serving.some(({ name }) => name === task.weights)) byId("weights").value = task.weights;
    const noise = Boolean(task?.rules.noise_unit);
    show("of-noise", noise);
    show("of-suv", task?.unit === "SUV");
    byId("factor-label").textContent = noise ? "Taken at 1 / … of the dose" : "K-space measured to 1 / …";
    byId("factor").placeholder = noise ? "auto" : String(task?.factor ?? "");
  }

  values() {
    const number = (id) => (byId(id).value === "" ? null : byId(id).valueAsNumber);
    const task = this.about.tasks[byId("task").value];
    const noise = Boolean(task.rules.noise_unit);
    return {
      task,
      weights: this.about.weights[byId("weights").value],
      webgpu: byId("webgpu").checked && !byId("webgpu").closest("[hidden]"),
      options: {
        plane: byId("plane").value,
        factor: number("factor"),
        strength: noise ? number("strength") : null,
        suv: task.unit === "SUV" && byId("suv").checked,
        force: byId("force").checked,
      },
    };
  }
}

function show(kind, there) {
  for (const part of document.getElementsByClassName(kind)) {
    part.hidden = !there;
    if ("disabled" in part) part.disabled = !there; // a hidden value that is not allowed would stop the form
  }
}

function fill(id, names, text) {
  byId(id).replaceChildren(...names.map((name) => element("option", { value: name, text: text(name) })));
}
