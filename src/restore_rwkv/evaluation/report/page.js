
/** Shows the plots of one measure, and keeps every choice of a measure the same. */
function chooseMeasure(index, slices) {
  for (const select of all("select.measure")) select.value = String(index);
  for (const plot of all(".plot[data-measure]")) plot.hidden = plot.dataset.measure !== String(index);
  find("#no-gains").hidden = all(".plot[data-measure]").some(plot => !plot.hidden);
  slices.show();
}

class Slices {
  constructor(data) {
    this.data = data;
    this.form = find("#finder");
    this.table = find("#slices table");
    this.sort = {column: null, up: true};
    this.most = 100;
    this.form.addEventListener("submit", event => event.preventDefault());
    this.form.addEventListener("input", () => { this.most = 100; this.show(); });
    if (this.form.elements.task) {
      this.form.elements.task.addEventListener("change", () => { this.sort.column = null; this.show(); });
    }
  }

  get task() { return Number(this.form.elements.task?.value ?? 0); }

  rows(table, measure) {
    const asGains = this.form.elements.gains.checked;
    const input = table.methods.indexOf(0);
    const better = this.data.measures[measure].better;
    const goodness = value => better === "lower" ? -value : better === "zero" ? -Math.abs(value) : value;
    return (table.values[measure] ?? []).flatMap((values, index) => {
      if (values === null) return [];
      const shown = !asGains ? values : values.map((value, place) =>
        value === null || values[input] === null || place === input ? null : goodness(value) - goodness(values[input]));
      const [patient, scan, slice, panel] = table.images[index];
      return [{patient, scan, slice, panel, shown, key: value => asGains ? value : goodness(value)}];
    });
  }

  show() {
    const table = this.data.tasks[this.task];
    if (!table) return;
    const measure = Number(this.form.elements.measure.value);
    const words = this.form.elements.text.value.trim().toLowerCase().split(/\s+/);
    const every = this.rows(table, measure);
    const kept = every.filter(row => {
      const text = `${row.patient} ${row.scan} ${row.slice ?? "all"}`.toLowerCase();
      return words.every(word => text.includes(word)) && (!this.form.elements.shown.checked || row.panel >= 0);
    });
    const restored = Math.max(0, table.methods.findIndex(method => method !== 0));
    const column = this.sort.column ?? restored;
    this.order(kept, column);
    this.fill(table, kept, measure, column);
    find("output", this.form).textContent = `${kept.length.toLocaleString("en")} of ${every.length.toLocaleString("en")} slices`;
  }

  order(rows, column) {
    const {up} = this.sort;
    const names = (a, b) => a.scan.localeCompare(b.scan, "en", {numeric: true}) || (a.slice ?? -1) - (b.slice ?? -1);
    rows.sort((a, b) => {
      if (column === "scan") return up ? names(a, b) : names(b, a);
      const [first, second] = [a.shown[column], b.shown[column]];
      if (first === null || second === null) return (first === null) - (second === null) || names(a, b);
      return (up ? 1 : -1) * (a.key(first) - b.key(second)) || names(a, b);
    });
  }

  fill(table, rows, measure, column) {
    const {decimals} = this.data.measures[measure];
    const head = element("tr");
    const heads = [["scan", "Scan"], ...table.methods.map((method, index) => [index, this.data.methods[method]])];
    for (const [key, title] of heads) {
      const active = key === column;
      const cell = element("th", {scope: "col"});
      if (active) cell.setAttribute("aria-sort", this.sort.up === (key === "scan") ? "ascending" : "other");
      const button = element("button", {type: "button"}, element("bdi", {}, title), active ? (this.sort.up ? " ▲" : " ▼") : "");
      button.addEventListener("click", () => {
        this.sort = {column: key, up: active ? !this.sort.up : true};
        this.show();
        all("thead button", this.table)[heads.findIndex(([other]) => other === key)].focus();
      });
      cell.append(button);
      head.append(cell);
    }
    head.append(element("th", {scope: "col"}, element("span", {class: "aloud"}, "Images")));
    const body = element("tbody");
    for (const row of rows.slice(0, this.most)) {
      const name = element("th", {scope: "row"}, element("bdi", {}, row.scan), row.slice === null ? ", whole scan" : `, slice ${row.slice}`);
      const cells = row.shown.map(value => element("td", {}, digits(value, decimals[this.task], this.form.elements.gains.checked)));
      const look = element("td");
      if (row.panel >= 0) look.append(element("button", {type: "button", class: "show", value: row.panel}, "Look"));
      body.append(element("tr", {}, name, ...cells, look));
    }
    if (!rows.length) body.append(element("tr", {class: "more"}, element("td", {colspan: heads.length + 1}, "No such slices.")));
    if (rows.length > this.most) {
      const more = element("button", {type: "button"}, "Show more");
      more.addEventListener("click", () => { this.most += 200; this.show(); });
      body.append(element("tr", {class: "more"}, element("td", {colspan: heads.length + 1}, more)));
    }
    this.table.replaceChildren(element("thead", {}, head), body);
  }
}

async function begin() {
  if (!("DecompressionStream" in window)) return; // the page is complete without what follows
  const packed = await inflate(bytesOf(find("#data").textContent));
  const data = JSON.parse(new TextDecoder().decode(packed));
  document.documentElement.classList.add("script");
  for (const hidden of all("[data-script]")) hidden.hidden = false;
  for (const part of all(".static")) part.hidden = true;
  const slices = new Slices(data);
  for (const select of all("select.measure")) {
    select.addEventListener("change", () => chooseMeasure(Number(select.value), slices));
  }
  chooseMeasure(0, slices);
  if (data.panels.length) {
    const viewer = new Viewer(data);
    await viewer.open(0);
    for (const figure of all(".glance")) await glance(figure, viewer);
    document.addEventListener("click", event => {
      const button = event.target.closest("button.show");
      if (!button) return;
      viewer.open(Number(button.value)).then(() => {
        find("#viewer").scrollIntoView({block: "start"});
        find("#stage").focus({preventScroll: true});
      });
    });
  }
  let opened = [];
  addEventListener("beforeprint", () => {
    opened = all("details:not([open])");
    for (const part of [...opened]) part.open = true;
  });
  addEventListener("afterprint", () => { for (const part of opened) part.open = false; });
  document.documentElement.dataset.ready = "yes";
}
