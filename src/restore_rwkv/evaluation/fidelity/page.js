
const UNSIGNED = [235, 100, 235], EDGE = [255, 225, 0], OPAQUE = 0.85;

/** The viewer of a restored image: before, restored, their difference, and a map over the image. */
class FidelityViewer extends Viewer {
  constructor(data) {
    super(data);
    this.note = element("div", {id: "map-note"});
    this.stage.after(this.note);
    find("#choice").closest("label").hidden = !data.maps.length;
  }

  get reference() { return "before"; }
  get listed() { return ["reference", "image 0"]; }
  colour(key) { return key === "reference" ? "m0" : "m1"; }
  get chosen() { return this.data.maps[Number(find("#choice").value)]; }

  fillChoices() {
    this.data.maps.forEach((_, place) => { this.codes[`map ${place}`] = this.stored.get(this.index)[2 + place]; });
    this.mapNumbers = this.panel.mapScales.map(valuesOf);
    const options = this.data.maps.map((map, place) => [String(place), map.title]);
    if (options.length) this.fill(find("#choice"), options, 0);
    this.fillSides();
  }

  sideBySide() {
    const views = [{title: "before", keys: ["reference"]}, {title: "restored", keys: ["image 0"]}, this.differenceOf("image 0")];
    if (this.chosen) views.push({title: this.chosen.title, keys: ["image 0"], map: find("#choice").value});
    return views;
  }

  build() {
    super.build();
    const of = this.chosen && find(`#map-${find("#choice").value} .about`);
    const texts = of ? all("p", of).map(each => each.cloneNode(true)) : [];
    this.note.replaceChildren(...texts);
    this.note.hidden = this.swipe || !texts.length;
  }

  mapValue(place, at) {
    const code = this.codes[`map ${place}`][at];
    return code === MISSING ? null : this.mapNumbers[place][code];
  }

  /** As `overlaid` of display.py. */
  shade(pixels, key, view, greys) {
    super.shade(pixels, key, view, greys);
    if (view.map === undefined) return;
    const {limit, signed, threshold} = this.data.maps[view.map];
    const codes = this.codes[`map ${view.map}`], numbers = this.mapNumbers[view.map];
    const [height, width] = this.panel.shape;
    const beyond = at => threshold !== null && Math.abs(numbers[codes[at]]) >= threshold;
    for (let row = 0, place = 0, at = 0; row < height; row += 1) {
      for (let column = 0; column < width; column += 1, place += 1, at += 4) {
        const share = Math.max(signed ? -1 : 0, Math.min(1, numbers[codes[place]] / limit)) || 0;
        const edge = beyond(place) && ((column && !beyond(place - 1)) || (column < width - 1 && !beyond(place + 1))
          || (row && !beyond(place - width)) || (row < height - 1 && !beyond(place + width)));
        const alpha = edge ? 1 : OPAQUE * Math.abs(share);
        const colour = edge ? EDGE : !signed ? UNSIGNED : share < 0 ? COLD : WARM;
        for (let channel = at; channel < at + 3; channel += 1) {
          pixels[channel] = pixels[channel] * (1 - alpha) + colour[channel - at] * alpha;
        }
      }
    }
  }

  drawMarks(context, view) {
    super.drawMarks(context, {...view, difference: view.difference || view.map !== undefined});
    const radius = this.data.radius * this.scale(view);
    for (const [number, row, column] of this.panel.rings) {
      const [x, y] = this.toScreen(view, row + 0.5, column + 0.5);
      for (const [colour, width] of [["rgba(0, 0, 0, .6)", 3.5], ["rgb(120, 230, 255)", 1.5]]) {
        context.strokeStyle = colour;
        context.lineWidth = width;
        context.beginPath();
        context.arc(x, y, radius, 0, 2 * Math.PI);
        context.stroke();
      }
      this.print(context, String(number), x + 0.75 * radius + 2, y - 0.75 * radius - 2);
    }
  }

  stops(view) {
    if (view.map === undefined || this.data.maps[view.map].signed) return super.stops(view);
    return ["#000", `rgb(${UNSIGNED})`];
  }

  ends(view) {
    if (view.map === undefined) return super.ends(view);
    const {limit, signed, unit} = this.data.maps[view.map];
    return `${signed ? "\u00b1" : "0 to "}${limit.toPrecision(2) * 1} ${unit}`.trim();
  }

  under(view) {
    if (view.map === undefined) return super.under(view);
    const {limit, signed, unit} = this.data.maps[view.map];
    const decimals = Math.max(0, 2 - Math.floor(Math.log10(limit)));
    const value = this.mapValue(view.map, this.cross.row * this.panel.shape[1] + this.cross.column);
    return `${digits(value, decimals, signed)} ${unit}`.trim();
  }

  sentence() {
    const view = this.views.find(each => each.map !== undefined);
    return view ? `${super.sentence()}, ${view.title} ${this.under(view)}` : super.sentence();
  }

  /** Shows a place: about 80 mm around it, with the cross hair on it. */
  async visit(index, number) {
    await this.open(index);
    const {at: [row, column], window, says} = this.data.places[number];
    find("#why").textContent = `Place ${number + 1}: ${says}`;
    this.window(...window);
    const [down, across] = this.spacing;
    const [height, width] = this.panel.shape;
    const field = this.panel.mm ? 80 : Math.max(height, width) / 3;
    this.zoom = Math.max(1, Math.min(8, Math.max(height * down, width * across) / field));
    this.middle = [row + 0.5, column + 0.5];
    this.pan(0, 0);
    this.point(row, column);
    find("#said").textContent = `Slice ${this.panel.slice}, ${this.sentence()}`;
  }
}

async function begin() {
  if (!("DecompressionStream" in window)) return; // the page is complete without what follows
  const data = JSON.parse(new TextDecoder().decode(await inflate(bytesOf(find("#data").textContent))));
  document.documentElement.classList.add("script");
  for (const hidden of all("[data-script]")) hidden.hidden = false;
  const viewer = new FidelityViewer(data);
  const first = find("button.show");
  await viewer.open(first ? Number(first.value) : data.panels.length >> 1);
  document.addEventListener("click", event => {
    const crops = event.target.closest(".places .crops, .places .locator");
    const button = crops ? find("button.show", crops.closest("li")) : event.target.closest("button.show");
    if (!button) return;
    viewer.visit(Number(button.value), Number(button.dataset.place)).then(() => {
      find("#why").scrollIntoView({block: "start"});
      find("#stage").focus({preventScroll: true});
    });
  });
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = all("details:not([open])");
    for (const part of opened) part.open = true;
  });
  addEventListener("afterprint", () => { for (const part of opened) part.open = false; });
  document.documentElement.dataset.ready = "yes";
}

begin();
