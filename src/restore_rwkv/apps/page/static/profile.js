// Values before and restored along a line.

import { NAMES } from "./panes.js";
import { byId, value } from "./words.js";

const SVG = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT, LEFT, BOTTOM, MARGIN] = [640, 220, 90, 38, 12];

export class Profile {
  constructor(panes, { unit, inSlice }) {
    Object.assign(this, { panes, unit, inSlice, start: null, end: null });
    byId("clear").addEventListener("click", () => this.clear());
  }

  set(start, end) {
    if (start) [this.start, this.end] = [start, null];
    if (end && this.start) this.end = end;
    this.draw();
  }

  clear() {
    this.start = this.end = null;
    this.draw();
    byId("draw").focus();
  }

  draw() {
    byId("clear").disabled = !this.start;
    for (const name of NAMES) this.mark(name);
    const there = this.start && this.end && this.start.some((place, axis) => place !== this.end[axis]);
    byId("plot").toggleAttribute("hidden", !there);
    if (there) this.plot();
    else byId("profile-text").textContent = this.start ? "One end is marked; move the cursor and press P for the other." : "Press the button, then drag across an image.";
  }

  // Draws the line over the image of a pane.
  mark(name) {
    const target = byId(`pane-${name}`).querySelector(".line");
    const voxels = [this.start, this.end].filter(Boolean);
    target.replaceChildren();
    if (!voxels.length || !voxels.every(this.inSlice)) return;
    const ends = voxels.map((voxel) => this.panes.pointOf(name, voxel));
    if (ends.includes(null)) return;
    if (ends.length > 1) target.append(shape("line", { x1: ends[0][0], y1: ends[0][1], x2: ends[1][0], y2: ends[1][1], class: "profile" }));
    for (const [cx, cy] of ends) target.append(shape("circle", { cx, cy, r: 4, class: "profile" }));
  }

  // The nearest voxels along the line, each once: [{distance in mm, before, after}].
  samples() {
    const { spacing } = this.panes;
    const ways = this.end.map((place, axis) => place - this.start[axis]);
    const steps = Math.max(...ways.map(Math.abs));
    const length = Math.hypot(...ways.map((way, axis) => way * spacing[axis]));
    return Array.from({ length: steps + 1 }, (_, step) => {
      const voxel = this.panes.inside(this.start.map((place, axis) => place + (ways[axis] * step) / steps));
      return { distance: (length * step) / steps, before: this.panes.value("before", voxel), after: this.panes.value("after", voxel) };
    });
  }

  plot() {
    const samples = this.samples();
    const values = samples.flatMap(({ before, after }) => [before, after]).filter(Number.isFinite);
    const low = Math.min(...values);
    const high = Math.max(...values);
    const length = samples.at(-1).distance;
    const x = (distance) => LEFT + (distance / length) * (WIDTH - LEFT - MARGIN);
    const y = (number) => HEIGHT - BOTTOM - ((number - low) / (high - low || 1)) * (HEIGHT - BOTTOM - MARGIN);
    const path = (name) => samples.map((sample) => `${x(sample.distance).toFixed(1)},${y(sample[name]).toFixed(1)}`).join(" ");
    byId("plot").replaceChildren(
      shape("path", { d: `M${LEFT} ${MARGIN}V${HEIGHT - BOTTOM}H${WIDTH - MARGIN}`, class: "axis" }),
      text(LEFT - 6, MARGIN + 8, "end", value(Number(high.toPrecision(4)))),
      text(LEFT - 6, HEIGHT - BOTTOM, "end", value(Number(low.toPrecision(4)))),
      text(LEFT, HEIGHT - 12, "start", "0 mm"),
      text(WIDTH - MARGIN, HEIGHT - 12, "end", `${length.toFixed(1)} mm`),
      text((LEFT + WIDTH) / 2, HEIGHT - 12, "middle", `Values in ${this.unit() || "units of the file"}`),
      shape("polyline", { points: path("before"), class: "before" }),
      shape("polyline", { points: path("after"), class: "after" }),
    );
    byId("plot").setAttribute("aria-label", `Profile over ${length.toFixed(1)} mm, values from ${value(low)} to ${value(high)}`);
    byId("profile-text").textContent = `${samples.length} voxels. Dashed: before. Solid: restored.`;
  }
}

function shape(name, attributes) {
  const made = document.createElementNS(SVG, name);
  for (const [key, given] of Object.entries(attributes)) made.setAttribute(key, given);
  return made;
}

function text(x, y, anchor, words) {
  const made = shape("text", { x, y, "text-anchor": anchor });
  made.textContent = words;
  return made;
}
