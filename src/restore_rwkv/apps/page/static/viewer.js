// The result that is shown: its panes, and how they are looked at, which a reload keeps.

import { Cursor } from "./cursor.js";
import { Maps } from "./maps.js";
import { Panes, canDraw } from "./panes.js";
import { Profile } from "./profile.js";
import { showResult } from "./result.js";
import { Swipe } from "./swipe.js";
import { windowsFor } from "./windows.js";
import { byId, element, signed } from "./words.js";

export class Viewer {
  constructor({ failed, said }) {
    Object.assign(this, { failed, said, job: null, ready: false });
    this.panes = new Panes();
    this.cursor = new Cursor(this.panes, { moved: () => this.moved(), line: (start, end) => this.profile.set(start, end) });
    this.profile = new Profile(this.panes, {
      unit: () => this.cursor.unit,
      inSlice: (voxel) => voxel[this.cursor.axis] === this.cursor.voxel[this.cursor.axis],
    });
    this.maps = new Maps(this.panes, { failed, changed: () => this.cursor.to(this.cursor.voxel) });
    this.swipe = new Swipe(() => this.keep());
    for (const name of ["layout", "plane"]) {
      for (const input of document.querySelectorAll(`input[name=${name}]`)) input.addEventListener("change", () => this[name](input.value));
    }
    byId("window").addEventListener("change", (event) => this.preset(Number(event.target.value)));
    for (const id of ["low", "high", "invert"]) byId(id).addEventListener("input", () => this.free());
    byId("smooth").addEventListener("change", (event) => this.panes.smooth(event.target.checked));
    byId("draw").addEventListener("click", () => this.pencil(!this.cursor.drawing));
  }

  get key() {
    return `view-${this.job.id}`;
  }

  // One result is loaded at a time; of those asked for meanwhile only the last is.
  async show(job) {
    this.job = job;
    this.ready = false;
    byId("nothing").hidden = true;
    byId("result").hidden = false;
    showResult(job);
    const before = this.loading;
    this.loading = this.load(job, before);
    await this.loading;
  }

  async load(job, before) {
    await before?.catch(() => {}); // its own caller hears of it
    if (this.job !== job) return;
    const stage = byId("stage");
    stage.hidden = false; // NiiVue asks for its size
    stage.setAttribute("aria-busy", "true");
    try {
      if (!canDraw()) throw new Error("This browser cannot draw the images, as it has no WebGL 2; the files below can be downloaded.");
      this.started ??= this.panes.start();
      await this.started;
      this.maps.begin(job.outputs.maps);
      await this.panes.load(job.outputs);
      if (this.job !== job) return;
      this.begin(JSON.parse(sessionStorage.getItem(this.key) ?? "{}"));
      stage.dataset.job = job.id;
    } catch (error) {
      stage.hidden = true; // it may still show another scan
      throw error;
    } finally {
      stage.removeAttribute("aria-busy");
    }
  }

  begin(kept) {
    const { outputs } = this.job;
    this.windows = windowsFor(outputs, this.panes.volume("before").img);
    byId("window").replaceChildren(
      ...this.windows.map(({ name }, place) => element("option", { value: place, text: name })),
      element("option", { value: -1, text: "Free" }),
    );
    byId("window-unit").textContent = outputs.unit ?? "";
    const unit = outputs.unit ?? "";
    const limit = Number(this.panes.limit.toPrecision(2));
    byId("scale-low").textContent = `${signed(-limit)} ${unit}`;
    byId("scale-high").textContent = `${signed(limit)} ${unit}`;
    this.profile.start = this.profile.end = null;
    this.pencil(false);
    this.apply(kept.window ?? this.windows[0], kept.preset ?? 0);
    check("layout", kept.layout ?? "swipe");
    this.layout(kept.layout ?? "swipe");
    this.panes.zoom = kept.zoom ?? [0, 0, 0, 1];
    const plane = kept.plane ?? this.planeOfSlices();
    check("plane", plane);
    this.cursor.begin(unit, plane, kept.voxel);
    this.swipe.set(kept.swipe ?? 50);
    this.panes.smooth(byId("smooth").checked);
    this.panes.onresize = () => this.cursor.to(this.cursor.voxel);
    this.ready = true;
  }

  planeOfSlices() {
    const axis = this.panes.order.findIndex((place) => Math.abs(place) - 1 === this.job.outputs.slice_axis);
    return ["sagittal", "coronal", "axial"][axis] ?? "axial";
  }

  moved() {
    this.profile.draw();
    this.keep();
  }

  // A reload finds the view again; another tab has its own.
  keep() {
    if (!this.ready) return;
    const { plane, voxel } = this.cursor;
    const kept = { plane, voxel, zoom: this.panes.zoom, window: this.shown, preset: Number(byId("window").value), layout: checked("layout"), swipe: this.swipe.place };
    sessionStorage.setItem(this.key, JSON.stringify(kept));
  }

  layout(name) {
    byId("stage").classList.toggle("swipe", name === "swipe");
    byId("stage").classList.toggle("beside", name !== "swipe");
    this.swipe.draw();
    this.keep();
  }

  plane(name) {
    this.panes.zoom = [0, 0, 0, 1];
    this.cursor.turn(name);
  }

  preset(place) {
    if (place >= 0) this.apply(this.windows[place], place);
    this.keep();
  }

  apply(window, place) {
    byId("window").value = place;
    byId("low").value = Number(window.low.toPrecision(5));
    byId("high").value = Number(window.high.toPrecision(5));
    byId("invert").checked = window.inverted;
    this.shown = window;
    this.panes.window(window);
  }

  free() {
    const [low, high] = [byId("low").valueAsNumber, byId("high").valueAsNumber];
    const usable = high > low;
    byId("high").setCustomValidity(usable ? "" : "has to be more than the value before it");
    if (!usable) return;
    byId("window").value = -1;
    this.shown = { low, high, inverted: byId("invert").checked };
    this.panes.window(this.shown);
    this.keep();
  }

  pencil(on) {
    this.cursor.drawing = on;
    byId("draw").setAttribute("aria-pressed", on);
    byId("stage").classList.toggle("drawing", on);
  }

  close(id) {
    sessionStorage.removeItem(`view-${id}`);
    if (this.job?.id !== id) return;
    this.job = null;
    this.ready = false;
    byId("viewer-title").textContent = "4. Compare";
    byId("nothing").hidden = false;
    byId("result").hidden = true;
  }
}

const checked = (name) => document.querySelector(`input[name=${name}]:checked`).value;

function check(name, value) {
  document.querySelector(`input[name=${name}][value=${value}]`).checked = true;
}
