
/** What people do to the viewer, values at the cross hair, and profiles. */
Object.assign(Viewer.prototype, {
  listen() {
    this.watch = new ResizeObserver(() => { this.size(); this.draw(); });
    const on = (selector, kind, act) => find(selector).addEventListener(kind, act);
    const count = this.data.panels.length;
    on("#panel", "change", event => this.open(Number(event.target.value)));
    on("#previous", "click", () => this.open((this.index + count - 1) % count));
    on("#next", "click", () => this.open((this.index + 1) % count));
    for (const name of ["choice", "left", "right"]) on(`#${name}`, "change", () => this.build());
    for (const radio of all("[name=layout]")) {
      radio.addEventListener("change", () => { this.swipe = radio.value === "swipe"; this.build(); });
    }
    for (const radio of all("[name=along]")) {
      radio.addEventListener("change", () => { if (radio.value === "row") this.line = null; this.draw(); });
    }
    const slide = () => {
      const [level, width] = [Number(find("#level").value), Number(find("#width").value)];
      this.limit = Number(find("#limit").value);
      const half = this.white < this.black ? -width / 2 : width / 2;
      this.window(level - half, level + half);
    };
    for (const name of ["level", "width", "limit"]) on(`#${name}`, "input", slide);
    on("#closer", "click", () => this.magnify(1.5));
    on("#farther", "click", () => this.magnify(1 / 1.5));
    on("#reset", "click", () => this.reset());
    this.stage.addEventListener("keydown", event => this.key(event));
    this.stage.addEventListener("wheel", event => this.wheel(event), {passive: false});
    this.stage.addEventListener("pointerdown", event => this.press(event));
    this.stage.addEventListener("pointermove", event => this.move(event));
    for (const kind of ["pointerup", "pointercancel"]) {
      this.stage.addEventListener(kind, event => this.pointers.delete(event.pointerId));
    }
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  },

  reset() {
    this.centre();
    this.line = null;
    find("[name=along][value=row]").checked = true;
    const [, black, white] = this.panel.windows[0];
    this.limit = this.panel.limit;
    this.window(black, white);
  },

  /** Zooms by a factor; the place (row, column) stays where it is on the screen. */
  magnify(factor, place = this.middle) {
    const zoom = Math.max(1, Math.min(32, this.zoom * factor));
    const share = 1 - this.zoom / zoom;
    this.middle = this.middle.map((value, axis) => value + (place[axis] - value) * share);
    this.zoom = zoom;
    this.pan(0, 0);
  },

  /** Moves by rows and columns, as far as the image reaches. */
  pan(rows, columns) {
    this.middle = [rows, columns].map((step, axis) => {
      const size = this.panel.shape[axis];
      const half = size / (2 * this.zoom);
      return Math.max(half, Math.min(size - half, this.middle[axis] + step));
    });
    this.stage.classList.toggle("close", this.zoom > 1);
    this.draw();
  },

  point(row, column) {
    const [height, width] = this.panel.shape;
    this.cross = {row: Math.max(0, Math.min(height - 1, row)), column: Math.max(0, Math.min(width - 1, column))};
    this.draw();
  },

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.id === "divider") return;
    const arrows = {ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1]};
    const arrow = arrows[event.key];
    const count = this.data.panels.length;
    const acts = {
      "+": () => this.magnify(1.25), "=": () => this.magnify(1.25), "-": () => this.magnify(0.8),
      0: () => this.reset(), s: () => this.end("from"), e: () => this.end("to"),
      "<": () => this.open((this.index + count - 1) % count), ">": () => this.open((this.index + 1) % count),
    };
    if (arrow && event.shiftKey) {
      this.point(this.cross.row + arrow[0], this.cross.column + arrow[1]);
      find("#said").textContent = this.sentence();
    } else if (arrow) {
      this.pan(...arrow.map((step, axis) => step * Math.max(1, this.panel.shape[axis] / (16 * this.zoom))));
    } else if (acts[event.key.toLowerCase()]) {
      acts[event.key.toLowerCase()]();
    } else return;
    event.preventDefault();
  },

  end(name) {
    const here = [this.cross.row + 0.5, this.cross.column + 0.5];
    this.line = {from: here, to: here, ...this.line, [name]: here};
    find("[name=along][value=line]").checked = true;
    this.draw();
  },

  viewAt(event) {
    const view = this.views.find(each => each.canvas === event.target);
    if (!view) return null;
    const box = view.canvas.getBoundingClientRect();
    return {view, place: this.toImage(view, event.clientX - box.left, event.clientY - box.top)};
  },

  wheel(event) {
    const found = this.viewAt(event);
    if (!found || !(event.ctrlKey || this.stage.contains(document.activeElement))) return;
    event.preventDefault();
    this.magnify(Math.exp(-Math.max(-100, Math.min(100, event.deltaY)) / 250), found.place);
  },

  press(event) {
    const found = this.viewAt(event);
    if (!found) return;
    this.stage.focus({preventScroll: true});
    event.target.setPointerCapture(event.pointerId);
    this.pointers.set(event.pointerId, [event.clientX, event.clientY]);
    this.point(...found.place.map(Math.floor));
    this.drawing = this.pointers.size === 1 && find("[name=along]:checked").value === "line";
    if (this.drawing) this.line = {from: found.place, to: found.place};
  },

  move(event) {
    const found = this.viewAt(event);
    if (!found) return;
    const before = this.pointers.get(event.pointerId);
    if (!before) return void (event.pointerType === "touch" || this.point(...found.place.map(Math.floor)));
    const now = [event.clientX, event.clientY];
    const scale = this.scale(found.view);
    const others = [...this.pointers].filter(([id]) => id !== event.pointerId).map(([, at]) => at);
    this.pointers.set(event.pointerId, now);
    if (others.length) {
      const apart = at => Math.max(10, Math.hypot(at[0] - others[0][0], at[1] - others[0][1]));
      this.magnify(apart(now) / apart(before), found.place);
    } else if (this.drawing) {
      const sizes = this.panel.shape;
      this.line.to = found.place.map((value, axis) => Math.max(0, Math.min(sizes[axis] - 0.01, value)));
      this.draw();
    } else {
      this.pan((before[1] - now[1]) / (scale * this.spacing[0]), (before[0] - now[0]) / (scale * this.spacing[1]));
    }
  },

  /** The handle between the two images of a swipe. */
  divider() {
    const handle = dividerOf("Divider between the two images", this.split, share => { this.split = share; this.draw(); });
    handle.id = "divider";
    return handle;
  },

  value(key, row, column) {
    const code = this.codes[key][row * this.panel.shape[1] + column];
    return code === MISSING ? null : this.numbers[code];
  },

  colour(key) {
    if (key === "reference") return "truth";
    const index = this.data.methods.indexOf(this.titles[key]);
    return `m${index % 8} d${Math.floor(index / 8)}`;
  },

  fillValues() {
    find("#values").replaceChildren(...this.listed.map(key => {
      const swatch = drawn("svg", {class: "swatch", width: 26, height: 12, "aria-hidden": "true"});
      swatch.append(drawn("line", {class: this.colour(key), x1: 1, x2: 25, y1: 6, y2: 6}));
      return element("div", {"data-key": key}, swatch, element("dt", {}, element("bdi", {}, this.titles[key])), element("dd"));
    }));
  },

  sentence() {
    const {row, column} = this.cross;
    const values = this.listed.map(key =>
      `${this.titles[key]} ${digits(this.value(key, row, column), this.decimals)}`);
    return `row ${row}, column ${column}: ${values.join(", ")} ${this.panel.unit}`;
  },

  /** Writes the values at the cross hair under the views and into the list. */
  tell() {
    const {row, column} = this.cross;
    const {unit} = this.panel;
    find("#values-title").textContent = `Row ${row}, column ${column}`;
    const reference = this.value("reference", row, column);
    for (const part of all("#values div")) {
      const value = this.value(part.dataset.key, row, column);
      const apart = part.dataset.key === "reference" || value === null || reference === null ? "" : ` (${digits(value - reference, this.decimals, true)})`;
      find("dd", part).textContent = `${digits(value, this.decimals)} ${unit}${apart}`;
    }
    for (const view of this.views) view.value.textContent = this.under(view);
  },

  /** Values at the cross hair that stand under a view. */
  under(view) {
    const {row, column} = this.cross;
    const [reference, ...values] = ["reference", ...view.keys].map(key => this.value(key, row, column));
    const shown = view.difference
      ? [values[0] === null || reference === null ? null : values[0] - reference] : values;
    return `${shown.map(value => digits(value, this.decimals, view.difference)).join(" | ")} ${this.panel.unit}`;
  },

  /** Values of an image along the row of the cross hair or the line, and places in mm or pixels. */
  along(key) {
    const [down, across] = this.spacing;
    const {from, to} = this.line ?? {};
    if (!from || find("[name=along]:checked").value === "row") {
      return Array.from({length: this.panel.shape[1]}, (_, column) => [(column + 0.5) * across, this.value(key, this.cross.row, column)]);
    }
    const length = Math.hypot((to[0] - from[0]) * down, (to[1] - from[1]) * across);
    const count = Math.max(2, Math.round(2 * Math.hypot(to[0] - from[0], to[1] - from[1])));
    return Array.from({length: count}, (_, step) => {
      const share = step / (count - 1);
      const [row, column] = [0, 1].map(axis => Math.floor(from[axis] + share * (to[axis] - from[axis])));
      return [share * length, this.value(key, row, column)];
    });
  },

  drawProfile() {
    const svg = find("#profile");
    const [wide, high] = [svg.clientWidth, svg.clientHeight];
    if (!wide) return;
    const [left, right, top, bottom] = [52, 10, 8, 36];
    const lines = ["reference", ...this.keys].map(key => [key, this.along(key)]);
    const values = lines.flatMap(([, points]) => points.map(point => point[1])).filter(value => value !== null);
    const end = Math.max(lines[0][1].at(-1)[0], 1e-9);
    let [low, most] = values.reduce(([a, b], value) => [Math.min(a, value), Math.max(b, value)], [Infinity, -Infinity]);
    // As the images: what lies beyond the window is cut off, so that small differences can be seen.
    const [black, white] = [Math.max(low, Math.min(this.black, this.white)), Math.min(most, Math.max(this.black, this.white))];
    if (black < white) [low, most] = [black, white];
    if (!(low < most)) [low, most] = values.length ? [low - 1, most + 1] : [0, 1];
    const x = value => left + (value / end) * (wide - left - right);
    const y = value => high - bottom - ((value - low) / (most - low)) * (high - top - bottom);
    const parts = [];
    const rise = roundBelow((most - low) / 2.5);
    for (let tick = Math.ceil(low / rise) * rise; tick <= most + 1e-9 * rise; tick += rise) {
      parts.push(drawn("line", {class: "grid", x1: left, x2: wide - right, y1: y(tick), y2: y(tick)}),
        drawn("text", {x: left - 6, y: y(tick) + 4, "text-anchor": "end"}, digits(tick, Math.max(0, -Math.floor(Math.log10(rise))))));
    }
    const run = roundBelow(end / 3);
    for (let tick = 0; tick <= end * 1.0001; tick += run) {
      parts.push(drawn("text", {x: x(tick), y: high - bottom + 15, "text-anchor": "middle"}, String(Number(tick.toPrecision(6)))));
    }
    const unit = this.panel.mm ? "mm" : "pixels";
    parts.push(drawn("text", {x: (left + wide - right) / 2, y: high - 4, "text-anchor": "middle"}, `${unit} along the line; values in ${this.panel.unit}`));
    const inside = drawn("svg", {x: left, y: top, width: wide - left - right, height: high - top - bottom, viewBox: `${left} ${top} ${wide - left - right} ${high - top - bottom}`});
    for (const [key, points] of lines) {
      let pen = "M";
      const path = points.map(([place, value]) => {
        if (value === null) { pen = "M"; return ""; }
        const piece = `${pen}${x(place).toFixed(1)} ${y(value).toFixed(1)}`;
        pen = "L";
        return piece;
      });
      inside.append(drawn("path", {class: this.colour(key), d: path.join("")}));
    }
    parts.push(inside);
    if (!this.line) parts.push(drawn("line", {class: "grid", x1: x((this.cross.column + 0.5) * this.spacing[1]), x2: x((this.cross.column + 0.5) * this.spacing[1]), y1: top, y2: high - bottom}));
    svg.replaceChildren(...parts);
  },
});

