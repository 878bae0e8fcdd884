
const COLD = [64, 160, 255], WARM = [255, 140, 26], MISSING = 65535;

const DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;,=>?@^_`{|}~";

/** Undoes `text_of` of images.py. */
function bytesOfDigits(text) {
  const places = new Uint8Array(128);
  for (let place = 0; place < 85; place += 1) places[DIGITS.charCodeAt(place)] = place;
  const bytes = new Uint8Array(4 * Math.ceil(text.length / 5));
  const words = new DataView(bytes.buffer);
  for (let at = 0, to = 0; at < text.length; at += 5, to += 4) {
    let word = 0;
    for (let next = at; next < at + 5; next += 1) word = word * 85 + (next < text.length ? places[text.charCodeAt(next)] : 84);
    words.setUint32(to, word);
  }
  return bytes.subarray(0, Math.floor(text.length * 4 / 5));
}

/** Undoes `encode` of images.py: codes of 16 bit of an image, with those of the one before. */
async function decode(text, [height, width], before) {
  const bytes = bytesOfDigits(text);
  const kind = bytes[0] & 3;
  const border = bytes[0] > 3 ? 32768 : 0;
  const rest = await inflate(bytes.subarray(1));
  const count = height * width;
  const codes = new Uint16Array(count);
  for (let row = 0, place = 0; row < height; row += 1) {
    for (let column = 0; column < width; column += 1, place += 1) {
      const folded = rest[place] | (rest[count + place] << 8);
      const left = column ? codes[place - 1] : border;
      const upper = row ? codes[place - width] : border;
      const corner = row && column ? codes[place - width - 1] : border;
      const predicted = kind === 2 ? (left + upper) >> 1 : kind === 1 ? left : kind ? left + upper - corner : border;
      codes[place] = predicted + ((folded >> 1) ^ -(folded & 1));
    }
  }
  if (border) for (let place = 0; place < count; place += 1) codes[place] += before[place] - border;
  return codes;
}

/** Value of each code of a panel. */
function valuesOf(scale) {
  const values = new Float64Array(65536).fill(NaN);
  let code = 0;
  for (const [first, step, count] of scale) {
    for (let index = 0; index < count; index += 1, code += 1) values[code] = first + step * index;
  }
  return values;
}

/** A round length, at most `most`: 1, 2 or 5 times a power of ten. */
function roundBelow(most) {
  const power = 10 ** Math.floor(Math.log10(most));
  return [5, 2, 1].find(step => step * power <= most) * power;
}

class Viewer {
  constructor(data) {
    this.data = data;
    this.stage = find("#stage");
    this.stored = new Map();
    this.pointers = new Map();
    this.swipe = false;
    this.split = 0.5;
    this.line = null;
    this.views = [];
    this.listen();
  }

  get panel() { return this.data.panels[this.index]; }
  get spacing() { return this.panel.mm ?? [1, 1]; }

  /** What differences are from, and the keys of images in the order in which they are listed. */
  get reference() { return "truth"; }
  get listed() { return [...this.keys, "reference"]; }

  /** Codes of the reference and of each other image on a panel. */
  async codesOf(index) {
    if (!this.stored.has(index)) {
      const texts = find(`#panel-${index}`).textContent.trim().split(" ");
      const codes = [];
      for (const text of texts) codes.push(await decode(text, this.data.panels[index].shape, codes.at(-1)));
      if (this.stored.size > 3) this.stored.delete(this.stored.keys().next().value);
      this.stored.set(index, codes);
    }
    return this.stored.get(index);
  }

  async open(index) {
    const panel = this.data.panels[index];
    this.wanted = index;
    const [reference, ...images] = await this.codesOf(index);
    if (this.wanted !== index) return; // another was asked for in the meantime
    const same = this.index !== undefined && this.panel.task === panel.task;
    this.index = index;
    this.numbers = valuesOf(panel.scale);
    this.step = Math.min(...panel.scale.map(range => range[1]));
    this.codes = {reference};
    panel.names.forEach((name, place) => { this.codes[`image ${place}`] = images[place]; });
    this.keys = [...panel.names.keys()].map(place => `image ${place}`);
    this.titles = {reference: this.reference};
    panel.names.forEach((name, place) => { this.titles[`image ${place}`] = name; });
    this.cross = {row: Math.floor(panel.shape[0] / 2), column: Math.floor(panel.shape[1] / 2)};
    this.line = null;
    find("[name=along][value=row]").checked = true;
    if (!same) this.begin();
    find("#panel").value = String(index);
    find("#why").textContent = panel.why;
    const ranges = panel.scale.map(([first, step], place) =>
      `${place ? `from ${digits(first, this.step < 1 ? 2 : 0)} on ` : ""}${Number((step / 2).toPrecision(2))}`);
    find("#stored").textContent = `Values shown differ from those of the images by at most (${panel.unit}): ${ranges.join(", ")}.`;
    this.fillChoices();
    this.centre();
    this.build();
  }

  /** The first window of a task, and the ends of the sliders. */
  begin() {
    const {windows, limit} = this.panel;
    const ends = windows.flatMap(window => window.slice(1));
    const [low, high] = [Math.min(...ends), Math.max(...ends)];
    const {step} = this;
    Object.assign(find("#level"), {min: low, max: high, step});
    Object.assign(find("#width"), {min: 2 * step, max: (high - low) * 1.5, step});
    Object.assign(find("#limit"), {min: limit / 20, max: limit * 4, step: limit / 20});
    this.limit = limit;
    const buttons = windows.map(([name, black, white]) => {
      const button = element("button", {type: "button", title: `${black} to ${white} ${this.panel.unit}`}, name);
      button.addEventListener("click", () => this.window(black, white));
      return button;
    });
    find("#windows").replaceChildren(...buttons);
    [, this.black, this.white] = windows[0];
  }

  window(black, white) {
    [this.black, this.white] = [black, white];
    this.paint();
  }

  /** Fills a list with [key, title], and keeps what is chosen where it is there. */
  fill(select, options, wanted) {
    const before = select.selectedOptions[0]?.textContent;
    select.replaceChildren(...options.map(([key, title]) => element("option", {value: key}, title)));
    const found = options.find(([, title]) => title === before) ?? options[Math.min(wanted, options.length - 1)];
    select.value = found[0];
  }

  fillChoices() {
    const images = this.keys.map(key => [key, this.titles[key]]);
    this.fill(find("#choice"), images.length > 1 ? images.slice(1) : images, 0);
    this.fillSides();
  }

  fillSides() {
    const options = this.listed.map(key => [key, this.titles[key]]);
    this.fill(find("#left"), options, 0);
    this.fill(find("#right"), options, 1);
  }

  centre() {
    this.zoom = 1;
    this.middle = [this.panel.shape[0] / 2, this.panel.shape[1] / 2];
    this.stage.classList.remove("close");
  }

  /** What is shown side by side: titles, keys of images, and whether they are differences. */
  sideBySide() {
    const method = find("#choice").value;
    return [{title: this.titles["image 0"], keys: ["image 0"]},
      ...(method === "image 0" ? [] : [{title: this.titles[method], keys: [method]}]),
      {title: this.reference, keys: ["reference"]},
      this.differenceOf(method)];
  }

  differenceOf(key) {
    return {title: `${this.titles[key]} \u2212 ${this.reference}`, keys: [key], difference: true};
  }

  swiped() {
    const keys = [find("#left").value, find("#right").value];
    return [{title: keys.map(key => this.titles[key]).join(" | "), keys}];
  }

  /** The views of the layout: each has a title, the keys of its images, and a canvas. */
  build() {
    const asked = this.swipe ? this.swiped() : this.sideBySide();
    this.stage.classList.toggle("swipe", this.swipe);
    find("#sides").hidden = !this.swipe;
    this.views = asked.map(view => {
      const canvas = element("canvas", {role: "img", "aria-label": `${view.title}, ${this.panel.scan}, slice ${this.panel.slice}`});
      const value = element("output");
      const figure = element("figure", {}, canvas, element("figcaption", {}, element("bdi", {}, view.title), value));
      return {...view, canvas, value, figure, bitmaps: []};
    });
    this.stage.replaceChildren(...this.views.map(view => view.figure));
    if (this.swipe) this.views[0].figure.append(this.divider());
    this.watch.disconnect();
    for (const view of this.views) this.watch.observe(view.figure);
    this.fillValues();
    this.size();
    this.paint();
  }

  size() {
    const [down, across] = this.spacing;
    const ratio = (this.panel.shape[0] * down) / (this.panel.shape[1] * across);
    for (const view of this.views) {
      const wide = view.figure.clientWidth;
      const most = this.swipe ? 0.8 * innerHeight : 2 * wide;
      const high = Math.max(60, Math.min(wide * ratio, most));
      view.canvas.style.height = `${high}px`;
      view.canvas.width = Math.round(wide * devicePixelRatio);
      view.canvas.height = Math.round(high * devicePixelRatio);
      Object.assign(view, {wide, high});
    }
    const divider = find("#divider");
    if (divider) divider.style.height = `${this.views[0].high}px`;
  }

  /** Computes the grey or coloured pixels of all views, then draws them. */
  paint() {
    const {numbers, step} = this;
    const {shape, unit} = this.panel;
    const greys = new Uint8ClampedArray(65536);
    const share = 255 / (this.white - this.black || 1e-30); // below 0 where the window is inverted
    for (let code = 0; code < MISSING; code += 1) greys[code] = (numbers[code] - this.black) * share;
    for (const view of this.views) {
      view.bitmaps = view.keys.map(key => {
        const bitmap = element("canvas", {width: shape[1], height: shape[0]});
        const context = bitmap.getContext("2d");
        const image = context.createImageData(shape[1], shape[0]);
        this.shade(image.data, key, view, greys);
        context.putImageData(image, 0, 0);
        return bitmap;
      });
    }
    const narrow = roundBelow(step);
    const decimals = Math.max(0, -Math.floor(Math.log10(narrow)));
    this.decimals = decimals;
    find("#level").value = (this.black + this.white) / 2;
    const width = Math.abs(this.white - this.black);
    find("#width").value = width;
    find("#limit").value = this.limit;
    find("#level-value").textContent = `${digits((this.black + this.white) / 2, decimals)} ${unit}`;
    find("#width-value").textContent = `${digits(width, decimals)} ${unit}`;
    find("#limit-value").textContent = `\u00b1${this.limit.toPrecision(2) * 1} ${unit}`;
    all("#windows button").forEach((button, place) => {
      const [, black, white] = this.panel.windows[place];
      button.setAttribute("aria-pressed", String(Math.abs(black - this.black) + Math.abs(white - this.white) < step));
    });
    this.draw();
  }

  shade(pixels, key, {difference}, greys) {
    const codes = this.codes[key];
    const {reference} = this.codes;
    const {numbers} = this;
    for (let place = 0, at = 0; place < codes.length; place += 1, at += 4) {
      if (difference) {
        const known = codes[place] !== MISSING && reference[place] !== MISSING;
        const part = known ? Math.max(-1, Math.min(1, (numbers[codes[place]] - numbers[reference[place]]) / this.limit)) : 0;
        const colour = part < 0 ? COLD : WARM;
        for (let channel = 0; channel < 3; channel += 1) pixels[at + channel] = Math.abs(part) * colour[channel];
      } else {
        pixels[at] = pixels[at + 1] = pixels[at + 2] = greys[codes[place]];
      }
      pixels[at + 3] = 255;
    }
  }

  /** Pixels of the screen for each mm (or pixel, where that is unknown) in a view. */
  scale(view) {
    const [down, across] = this.spacing;
    const [height, width] = this.panel.shape;
    return this.zoom * Math.min(view.wide / (width * across), view.high / (height * down));
  }

  toScreen(view, row, column) {
    const scale = this.scale(view);
    return [view.wide / 2 + (column - this.middle[1]) * this.spacing[1] * scale,
      view.high / 2 + (row - this.middle[0]) * this.spacing[0] * scale];
  }

  toImage(view, x, y) {
    const scale = this.scale(view);
    return [this.middle[0] + (y - view.high / 2) / (scale * this.spacing[0]),
      this.middle[1] + (x - view.wide / 2) / (scale * this.spacing[1])];
  }

  draw() {
    cancelAnimationFrame(this.frame);
    this.frame = requestAnimationFrame(() => {
      for (const view of this.views) this.drawView(view);
      this.tell();
      this.drawProfile();
    });
  }

  drawView(view) {
    const context = view.canvas.getContext("2d");
    context.setTransform(devicePixelRatio, 0, 0, devicePixelRatio, 0, 0);
    context.fillStyle = "#000";
    context.fillRect(0, 0, view.wide, view.high);
    const [x, y] = this.toScreen(view, 0, 0);
    const [right, bottom] = this.toScreen(view, ...this.panel.shape);
    context.imageSmoothingEnabled = (right - x) / this.panel.shape[1] < 3;
    context.imageSmoothingQuality = "high";
    view.bitmaps.forEach((bitmap, side) => {
      context.save();
      context.beginPath();
      const edge = this.split * view.wide;
      if (view.bitmaps.length > 1) context.rect(side ? edge : 0, 0, side ? view.wide - edge : edge, view.high);
      else context.rect(0, 0, view.wide, view.high);
      context.clip();
      context.drawImage(bitmap, x, y, right - x, bottom - y);
      context.restore();
    });
    this.drawMarks(context, view);
  }

  drawMarks(context, view) {
    const [x, y] = this.toScreen(view, this.cross.row + 0.5, this.cross.column + 0.5);
    const stroke = (colour, width, ...points) => {
      context.strokeStyle = colour;
      context.lineWidth = width;
      context.beginPath();
      points.forEach(([a, b], place) => place ? context.lineTo(a, b) : context.moveTo(a, b));
      context.stroke();
    };
    const gap = 7;
    for (const [colour, width] of [["rgba(0, 0, 0, .55)", 3], ["rgba(120, 230, 255, .9)", 1]]) {
      for (const [ax, ay] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
        stroke(colour, width, [x + gap * ax, y + gap * ay], [x + 3 * gap * ax, y + 3 * gap * ay]);
      }
      if (this.line) {
        stroke(colour, width + 0.75, ...[this.line.from, this.line.to].map(end => this.toScreen(view, end[0], end[1])));
      }
    }
    if (view.difference) this.drawScale(context, view);
    else this.drawBar(context, view, stroke);
  }

  drawBar(context, view, stroke) {
    if (!this.panel.mm) return;
    const scale = this.scale(view);
    const length = roundBelow(0.3 * view.wide / scale);
    const [x, y] = [10, view.high - 12];
    for (const [colour, width] of [["#000", 5], ["#fff", 2.5]]) stroke(colour, width, [x, y], [x + length * scale, y]);
    this.print(context, `${length} mm`, x, y - 7);
  }

  /** The colours of differences, with their ends. */
  drawScale(context, view) {
    const [wide, high] = [Math.min(120, 0.5 * view.wide), 8];
    const [x, y] = [10, view.high - 16];
    const shades = context.createLinearGradient(x, 0, x + wide, 0);
    this.stops(view).forEach((colour, place, stops) => shades.addColorStop(place / (stops.length - 1), colour));
    context.fillStyle = "#fff";
    context.fillRect(x - 1, y - 1, wide + 2, high + 2);
    context.fillStyle = shades;
    context.fillRect(x, y, wide, high);
    this.print(context, this.ends(view), x, y - 6);
  }

  /** Colours of the scale of a view, and what its ends stand for. */
  stops() { return [`rgb(${COLD})`, "#000", `rgb(${WARM})`]; }
  ends() { return `\u00b1${this.limit.toPrecision(2) * 1} ${this.panel.unit}`; }

  print(context, text, x, y) {
    context.font = "600 12px system-ui, sans-serif";
    context.lineWidth = 3;
    context.strokeStyle = "#000";
    context.fillStyle = "#fff";
    context.strokeText(text, x, y);
    context.fillText(text, x, y);
  }
}
