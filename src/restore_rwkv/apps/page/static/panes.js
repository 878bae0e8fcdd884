// Three canvases of NiiVue that show one place: before, restored and their difference.
// NiiVue only draws here. What is done with mouse, touch and keys is in cursor.js.

import { differenceLimit } from "./windows.js";
import { byId } from "./words.js";

export const NAMES = ["before", "after", "difference"];
const PLANES = { axial: 0, coronal: 1, sagittal: 2 }; // slice types of NiiVue
export const AXES = { axial: 2, coronal: 1, sagittal: 0 }; // axes towards right, front and top
const SETTINGS = {
  backColor: [0, 0, 0, 1],
  crosshairWidth: 0, // its width depends on the size of voxels; cursor.js draws one
  isColorbar: false,
  isRadiologicalConvention: true,
  isNearestInterpolation: true,
  dragAndDropEnabled: false,
  show3Dcrosshair: false,
  logLevel: "error",
  loadingText: "",
  isSliceMM: false,
};
// Opaque at every value: NiiVue's own are transparent at the lowest, which is white if inverted.
const COLOURS = {
  grey: { R: [0, 255], G: [0, 255], B: [0, 255], A: [255, 255], I: [0, 255] },
  "grey inverted": { R: [255, 0], G: [255, 0], B: [255, 0], A: [255, 255], I: [0, 255] },
  difference: { R: [70, 0, 255], G: [160, 0, 150], B: [255, 0, 40], A: [255, 255, 255], I: [0, 128, 255] },
};

export function canDraw() {
  return Boolean(document.createElement("canvas").getContext("webgl2"));
}

export class Panes {
  async start() {
    await import("./vendor/niivue.umd.js");
    const { Niivue } = globalThis.niivue;
    this.views = {};
    for (const name of NAMES) {
      const view = new Niivue(SETTINGS);
      const canvas = byId(`pane-${name}`).querySelector("canvas");
      await view.attachToCanvas(canvas, false);
      canvas.tabIndex = -1;
      for (const [colour, map] of Object.entries(COLOURS)) view.addColormap(colour, map);
      this.views[name] = view;
    }
    const observer = new ResizeObserver(() => this.resized());
    for (const name of NAMES) observer.observe(byId(`pane-${name}`));
  }

  // NiiVue follows one frame later; places on the screen must be those of the new size.
  resized() {
    for (const view of Object.values(this.views)) view.resizeListener();
    this.onresize?.();
  }

  async load(outputs) {
    await Promise.all(
      NAMES.map((name) =>
        this.views[name].loadVolumes([{ url: outputs[name], name: `${name}.nii.gz`, colormap: name === "difference" ? "difference" : "grey" }]),
      ),
    );
    const { dimsRAS, permRAS, pixDimsRAS } = this.volume("before");
    this.size = [dimsRAS[1], dimsRAS[2], dimsRAS[3]];
    this.spacing = [pixDimsRAS[1], pixDimsRAS[2], pixDimsRAS[3]];
    this.order = [...permRAS];
    this.limit = differenceLimit(this.volume("difference").img);
    this.colour("difference", "difference", -this.limit, this.limit);
    this.zoom = [0, 0, 0, 1];
  }

  volume(name) {
    return this.views[name].volumes[0];
  }

  colour(name, colours, low, high) {
    const view = this.views[name];
    const volume = view.volumes[0];
    volume.colormap = colours; // first: it resets the range
    Object.assign(volume, { cal_min: low, cal_max: high });
    view.updateGLVolume();
  }

  window({ low, high, inverted }) {
    for (const name of ["before", "after"]) this.colour(name, inverted ? "grey inverted" : "grey", low, high);
  }

  plane(name) {
    for (const view of Object.values(this.views)) view.setSliceType(PLANES[name]);
  }

  smooth(on) {
    for (const view of Object.values(this.views)) view.setInterpolation(!on);
  }

  // Puts the cursor of all panes into the middle of a voxel; axes run right, front and top.
  draw(voxel) {
    for (const view of Object.values(this.views)) {
      view.scene.crosshairPos = this.fraction(voxel);
      view.scene.pan2Dxyzmm = Float32Array.from(this.zoom);
      view.drawScene();
    }
  }

  fraction(voxel) {
    return Float32Array.from(voxel, (place, axis) => (place + 0.5) / this.size[axis]);
  }

  // The voxel under a point of the screen, with fractions; null beside the image.
  voxelAt(name, x, y) {
    const voxel = this.placeAt(name, x, y);
    return voxel.every((place, axis) => place >= -0.5 && place <= this.size[axis] - 0.5) ? voxel : null;
  }

  placeAt(name, x, y) {
    const view = this.views[name];
    const area = view.canvas.getBoundingClientRect();
    const scale = view.canvas.width / area.width;
    const found = view.screenXY2TextureFrac((x - area.left) * scale, (y - area.top) * scale, 0, false);
    return this.size.map((count, axis) => found[axis] * count - 0.5);
  }

  // Zooms so that a voxel stays where it is: NiiVue draws mm * zoom + pan.
  magnify(zoom, voxel) {
    const mm = this.views.before.frac2mm(this.fraction(voxel));
    const change = this.zoom[3] - zoom;
    this.zoom = [...[0, 1, 2].map((axis) => this.zoom[axis] + mm[axis] * change), zoom];
  }

  // Moves the image by pixels of the screen.
  shift(name, right, down) {
    const area = this.views[name].canvas.getBoundingClientRect();
    const here = this.placeAt(name, area.left, area.top);
    const there = this.placeAt(name, area.left + right, area.top + down);
    const pan = [0, 1, 2].map((axis) => this.zoom[axis] + (there[axis] - here[axis]) * this.spacing[axis] * this.zoom[3]);
    this.zoom = [...pan, this.zoom[3]];
  }

  // Where a voxel of the slice shown lies in a pane, in CSS pixels; null where nothing is drawn.
  pointOf(name, voxel) {
    const view = this.views[name];
    const found = view.frac2canvasPos(this.fraction(voxel));
    return found && found.map((place) => (place * view.canvas.clientWidth) / view.canvas.width);
  }

  inside(voxel) {
    return voxel.map((place, axis) => Math.min(this.size[axis] - 1, Math.max(0, Math.round(place))));
  }

  // The index of a voxel in the file, whose axes may run elsewhere.
  inFile(voxel) {
    const index = [0, 0, 0];
    this.order.forEach((axis, place) => {
      index[Math.abs(axis) - 1] = axis > 0 ? voxel[place] : this.size[place] - 1 - voxel[place];
    });
    return index;
  }

  value(name, voxel, layer = 0) {
    const volume = this.views[name].volumes[layer];
    if (!volume) return NaN;
    const [i, j, k] = this.inFile(voxel);
    const [, nx, ny] = volume.hdr.dims;
    return volume.img[i + nx * (j + ny * k)];
  }
}
