// The list of scans: radio buttons, so that arrow keys choose.

import { get, remove } from "./api.js";
import { byId, bytes, duration, element, fit } from "./words.js";

const SHOWN = 300; // more make the list slow; `Find` reaches the others
const KEY = "scan";

export class Scans {
  constructor({ chosen, failed }) {
    this.all = [];
    this.chosen = sessionStorage.getItem(KEY);
    this.tell = chosen;
    this.failed = failed;
    byId("filter").addEventListener("input", () => this.draw());
  }

  get current() {
    return this.all.find((scan) => scan.id === this.chosen) ?? null;
  }

  // One request at a time; what changes meanwhile is asked for once more.
  async load() {
    if (this.loading) {
      this.again = true;
      return;
    }
    this.loading = true;
    try {
      do {
        this.again = false;
        this.all = await get("/api/scans");
        if (!this.current && this.all.length === 1) this.chosen = this.all[0].id;
        this.draw();
        this.tell(this.current);
      } while (this.again);
    } catch (error) {
      this.failed(error);
    } finally {
      this.loading = false;
    }
  }

  choose(id) {
    this.chosen = id;
    sessionStorage.setItem(KEY, id);
    this.tell(this.current);
  }

  draw() {
    const wanted = byId("filter").value.toLowerCase();
    const found = this.all.filter((scan) => scan.name.toLowerCase().includes(wanted));
    const list = byId("scans");
    const focused = document.activeElement?.id;
    const rows = found.slice(0, SHOWN).map((scan) => this.row(scan));
    if (found.length > SHOWN) rows.push(element("p", { class: "small", text: `and ${found.length - SHOWN} more` }));
    list.replaceChildren(list.firstElementChild, ...rows);
    if (focused && document.activeElement?.id !== focused) byId(focused)?.focus();
    byId("filter-line").hidden = this.all.length <= 12;
    byId("no-scans").hidden = this.all.length > 0;
  }

  row(scan) {
    const input = element("input", {
      type: "radio",
      name: "scan",
      id: `scan-${scan.id}`,
      value: scan.id,
      "aria-describedby": `about-${scan.id}`,
      onchange: () => this.choose(scan.id),
    });
    input.checked = scan.id === this.chosen;
    const about = element("span", { class: `about ${scan.state}`, id: `about-${scan.id}` });
    about.append(...describe(scan).map((text) => element("span", { text })));
    const row = element("div", { class: "scan" }, element("label", {}, input, element("span", { class: "name", text: scan.name })), about);
    if (scan.upload) {
      const forget = () => remove(`/api/uploads/${scan.upload}`).catch(this.failed);
      row.append(element("button", { type: "button", id: `drop-${scan.id}`, class: "plain", "aria-label": `Remove ${scan.name}`, text: "Remove", onclick: forget }));
    }
    return row;
  }
}

function describe(scan) {
  if (scan.state === "looking") return ["Looking at it \u2026"];
  if (scan.state === "refused") return [`Cannot be restored: ${scan.reason}`];
  const lines = [size(scan)];
  if (!scan.task) lines.push("The file does not say what it is: choose the task below.");
  else if (fit(scan.fit.outcome)) lines.push(`${scan.modality ?? "Scan"} that ${fit(scan.fit.outcome)}`);
  if (scan.memory != null) {
    const free = scan.free == null ? "" : ` of ${bytes(scan.free)} free`;
    lines.push(`Takes about ${duration(scan.seconds)}, ${bytes(scan.memory)}${free}`);
  }
  return [...lines, ...scan.fit.lines];
}

function size(scan) {
  const shape = scan.shape ? scan.shape.join(" \u00d7 ") : "";
  const volumes = scan.volumes > 1 ? `, ${scan.volumes} volumes` : "";
  const spacing = scan.spacing ? `, ${scan.spacing.map((mm) => Number(mm.toPrecision(3))).join(" \u00d7 ")} mm` : "";
  return `${scan.modality ?? "Unknown kind"}, ${shape} voxels${spacing}${volumes}`;
}
