// Maps of the report, one at a time over the restored image.

import { byId, element } from "./words.js";

export class Maps {
  constructor(panes, { failed, changed }) {
    Object.assign(this, { panes, failed, changed, maps: [] });
    byId("map").addEventListener("change", () => this.show());
    byId("opacity").addEventListener("input", () => this.opacity());
  }

  begin(maps) {
    this.maps = maps;
    byId("maps").hidden = !maps.length;
    byId("map").replaceChildren(element("option", { value: "", text: "none" }), ...maps.map((map) => element("option", { value: map.name, text: map.title })));
    this.say(null);
  }

  say(map) {
    byId("map-meaning").textContent = map ? map.meaning : "";
    byId("map-blind").textContent = map?.blind_to ? `It cannot see: ${map.blind_to}` : "";
    for (const id of ["map-head", "value-map"]) byId(id).hidden = !map;
    byId("map-head").textContent = map ? `${map.title}${map.unit ? `, ${map.unit}` : ""}` : "";
  }

  async show() {
    const map = this.maps.find(({ name }) => name === byId("map").value) ?? null;
    const view = this.panes.views.after;
    try {
      while (view.volumes.length > 1) view.removeVolume(view.volumes[1]);
      if (map) {
        view.addColormap(`map ${map.name}`, colours(map));
        await view.addVolumeFromUrl({ url: map.url, name: `${map.name}.nii.gz`, opacity: Number(byId("opacity").value), colormap: `map ${map.name}`, ...range(map) });
      }
      this.say(map);
    } catch (error) {
      this.failed(error);
    }
    this.changed();
  }

  opacity() {
    const view = this.panes.views.after;
    if (view.volumes.length > 1) view.setOpacity(1, Number(byId("opacity").value));
  }
}

function range({ signed, limit }) {
  if (!(limit > 0)) return {};
  return { cal_min: signed ? -limit : 0, cal_max: limit };
}

// What lies below the threshold is clear; more is brighter, and of a signed map blue is less.
function colours({ signed, limit, threshold }) {
  const share = Math.min(0.98, Math.max(0.01, limit > 0 ? (threshold ?? 0) / limit : 0.01));
  if (!signed) {
    const begins = Math.max(1, Math.round(255 * share));
    return { R: [0, 0, 200, 255], G: [0, 0, 40, 230], B: [0, 0, 60, 80], A: [0, 0, 255, 255], I: [0, begins - (begins > 1 ? 1 : 0), begins + 1, 255] };
  }
  const half = Math.max(2, Math.round(126 * share));
  return {
    R: [90, 20, 0, 0, 200, 255],
    G: [200, 70, 0, 0, 60, 220],
    B: [255, 220, 0, 0, 20, 60],
    A: [255, 255, 0, 0, 255, 255],
    I: [0, 128 - half - 1, 128 - half, 128 + half, 128 + half + 1, 255].map((place, at) => Math.max(at, place)),
  };
}
