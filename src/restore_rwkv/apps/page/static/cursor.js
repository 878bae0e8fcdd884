// The cursor that all panes share: mouse, touch and keys move it, the slice and the zoom.

import { AXES, NAMES } from "./panes.js";
import { byId, signed, value } from "./words.js";

const LETTERS = ["x", "y", "z"];
const MOST_ZOOM = 20;
const FOR_ONE_NOTCH = 1.15;
const GAP = 9; // pixels around the cursor that stay free

export class Cursor {
  constructor(panes, { moved, line }) {
    Object.assign(this, { panes, moved, line, drawing: false, pointers: new Map() });
    for (const name of NAMES) {
      const target = byId(`pane-${name}`).querySelector(".touch");
      target.addEventListener("pointerdown", (event) => this.down(event, name, target));
      target.addEventListener("pointermove", (event) => this.move(event, name));
      for (const kind of ["pointerup", "pointercancel"]) target.addEventListener(kind, (event) => this.up(event));
      target.addEventListener("pointerleave", () => this.read(this.voxel));
      target.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
      target.addEventListener("contextmenu", (event) => event.preventDefault());
    }
    byId("stage").addEventListener("keydown", (event) => this.key(event));
    byId("slice").addEventListener("input", (event) => this.slice(Number(event.target.value) - 1));
    byId("zoom-in").addEventListener("click", () => this.magnify(1.5));
    byId("zoom-out").addEventListener("click", () => this.magnify(1 / 1.5));
    byId("zoom-fit").addEventListener("click", () => this.fit());
  }

  begin(unit, plane, voxel) {
    this.unit = unit ?? "";
    this.plane = plane;
    this.voxel = this.panes.inside(voxel ?? this.panes.size.map((count) => Math.floor(count / 2)));
    this.turn(plane);
  }

  get axis() {
    return AXES[this.plane];
  }

  turn(plane) {
    this.plane = plane;
    this.panes.plane(plane);
    byId("slice").max = this.panes.size[this.axis];
    this.to(this.voxel);
  }

  to(voxel) {
    this.voxel = this.panes.inside(voxel);
    this.panes.draw(this.voxel);
    const number = this.voxel[this.axis] + 1;
    byId("slice").value = number;
    byId("slice-text").textContent = `Slice ${number} of ${this.panes.size[this.axis]}`;
    this.read(this.voxel);
    NAMES.forEach((name) => this.cross(name));
    this.moved();
  }

  // Marks the cursor in a pane, and leaves its middle free.
  cross(name) {
    const target = byId(`pane-${name}`).querySelector(".touch");
    const point = this.panes.pointOf(name, this.voxel);
    target.querySelector(".cross").setAttribute("d", point ? crossAt(...point, target.clientWidth, target.clientHeight) : "");
  }

  slice(number) {
    const voxel = [...this.voxel];
    voxel[this.axis] = number;
    this.to(voxel);
  }

  // Says the values of a voxel exactly as the files have them.
  read(voxel) {
    if (!voxel) return;
    const place = this.panes.inFile(voxel).map((index, axis) => `${LETTERS[axis]} ${index}`);
    byId("where").textContent = `Voxel of the file, counted from 0: ${place.join(", ")}`;
    for (const name of NAMES) {
      const number = this.panes.value(name, voxel);
      byId(`value-${name}`).textContent = `${name === "difference" ? signed(number) : value(number)} ${this.unit}`;
    }
    const map = this.panes.value("after", voxel, 1);
    byId("value-map").textContent = Number.isNaN(map) ? "" : value(map);
  }

  fit() {
    this.panes.zoom = [0, 0, 0, 1];
    this.to(this.voxel);
  }

  // Zooms about the cursor, which stays where it is on the screen.
  magnify(factor) {
    const zoom = Math.min(MOST_ZOOM, Math.max(1, this.panes.zoom[3] * factor));
    if (zoom === 1) return this.fit();
    this.panes.magnify(zoom, this.voxel);
    this.to(this.voxel);
  }

  shift(name, right, down) {
    this.panes.shift(name, right, down);
    this.to(this.voxel);
  }

  // The axes that run across and along the screen.
  inPlane() {
    return { axial: [0, 1], coronal: [0, 2], sagittal: [1, 2] }[this.plane];
  }

  at(event, name) {
    const voxel = this.panes.voxelAt(name, event.clientX, event.clientY);
    if (voxel) voxel[this.axis] = this.voxel[this.axis]; // rounding must not change the slice
    return voxel;
  }

  down(event, name, target) {
    byId("stage").focus({ preventScroll: true });
    target.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, [event.clientX, event.clientY]);
    const voxel = this.at(event, name);
    const pans = event.shiftKey || event.button > 0;
    this.doing = this.pointers.size > 1 ? "pinch" : pans ? "pan" : this.drawing ? "line" : "point";
    if (this.doing === "point" && voxel) this.to(voxel);
    if (this.doing === "line" && voxel) this.line(this.panes.inside(voxel), null);
    event.preventDefault();
  }

  move(event, name) {
    const voxel = this.at(event, name);
    const last = this.pointers.get(event.pointerId);
    if (!last) {
      if (voxel && event.pointerType === "mouse") this.read(this.panes.inside(voxel));
      return;
    }
    const apart = this.apart();
    this.pointers.set(event.pointerId, [event.clientX, event.clientY]);
    if (this.doing === "pinch" && apart) this.magnify(this.apart() / apart);
    if (this.doing === "pan") this.shift(name, event.clientX - last[0], event.clientY - last[1]);
    if (this.doing === "point" && voxel) this.to(voxel);
    if (this.doing === "line" && voxel) this.line(null, this.panes.inside(voxel));
  }

  up(event) {
    this.pointers.delete(event.pointerId);
    if (!this.pointers.size) this.doing = null;
  }

  // Distance of two fingers; 0 with fewer.
  apart() {
    const [one, two] = this.pointers.values();
    return two ? Math.hypot(one[0] - two[0], one[1] - two[1]) : 0;
  }

  wheel(event) {
    event.preventDefault();
    const way = Math.sign(event.deltaY);
    if (event.ctrlKey) this.magnify(way > 0 ? 1 / FOR_ONE_NOTCH : FOR_ONE_NOTCH);
    else this.slice(this.voxel[this.axis] - way);
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target !== byId("stage")) return;
    const [across, along] = this.inPlane();
    // Radiological: the patient's right is on the left, in axial and coronal slices.
    const rightwards = this.plane === "sagittal" ? 1 : -1;
    const moves = {
      ArrowLeft: [across, -rightwards],
      ArrowRight: [across, rightwards],
      ArrowUp: [along, 1],
      ArrowDown: [along, -1],
      PageUp: [this.axis, 1],
      PageDown: [this.axis, -1],
    };
    const others = {
      "+": () => this.magnify(1.5),
      "=": () => this.magnify(1.5),
      "-": () => this.magnify(1 / 1.5),
      0: () => this.fit(),
      p: () => this.mark(),
      P: () => this.mark(),
    };
    if (event.key in moves) {
      const [axis, step] = moves[event.key];
      const voxel = [...this.voxel];
      voxel[axis] += event.shiftKey ? 10 * step : step;
      this.to(voxel);
    } else if (event.key in others) others[event.key]();
    else return;
    event.preventDefault();
  }

  // Marks one end of the profile, then the other.
  mark() {
    this.marked = !this.marked;
    this.line(this.marked ? this.voxel : null, this.marked ? null : this.voxel);
  }
}

function crossAt(x, y, width, height) {
  return `M0 ${y}H${x - GAP}M${x + GAP} ${y}H${width}M${x} 0V${y - GAP}M${x} ${y + GAP}V${height}`;
}
