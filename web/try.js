// The page: a scan is chosen, restored by a worker of this page, and compared.

import { fetched } from "./fetched.js";
import { Form } from "./form.js";
import { onDrop } from "./page/dropping.js";
import { Viewer } from "./page/viewer.js";
import { byId, element, progress } from "./page/words.js";
import { Cancelled, Work } from "./work.js";

const BASE = new URL("./", import.meta.url).href;

class Page {
  constructor(about) {
    Object.assign(this, { about, scan: null, number: 0, job: null, addresses: [] });
    this.work = new Work();
    this.viewer = new Viewer({ failed, said });
    this.form = new Form(about, (values) => this.restore(values));
    byId("machine").textContent = `Version ${about.version}, in this browser, without a server`;
    byId("notice").textContent = about.notice;
    byId("pick").addEventListener("click", () => byId("file").click());
    byId("file").addEventListener("change", (event) => {
      const [file] = event.target.files;
      event.target.value = "";
      if (file) this.take(file);
    });
    byId("sample").addEventListener("click", () => this.sample());
    byId("cancel").addEventListener("click", () => this.work.stop());
    onDrop((data) => this.dropped(data.files));
    for (const id of ["pick", "sample"]) byId(id).disabled = false;
  }

  dropped(files) {
    if (files.length > 1) failed(new Error(`${files.length} files: the page takes one at a time; drop one NIfTI file`));
    else if (files.length) this.take(files[0]);
  }

  async sample() {
    const { file, name, task, text } = this.about.sample;
    try {
      await this.take(new File([await fetched(new URL(file, BASE), name)], name), task, text);
    } catch (error) {
      failed(error);
    }
  }

  async take(file, task = null, text = "") {
    if (this.busy) return failed(new Error("A scan is being restored; wait for it, or cancel it."));
    fine();
    said(`Reading ${file.name}`);
    const number = ++this.number;
    this.scan = null;
    this.form.hide();
    try {
      const found = await this.work.ask("look", { file, number });
      if (number !== this.number) return;
      this.scan = { file, number };
      const size = `${found.grid.join(" × ")} voxels, ${found.spacing.map((mm) => Number(mm.toPrecision(3))).join(" × ")} mm`;
      byId("about").replaceChildren(...[size, text, ...found.warnings].filter(Boolean).map((line) => element("span", { text: line })));
      byId("about").hidden = false;
      this.form.scan(file.name, task);
      said(`${file.name} was read.`);
    } catch (error) {
      if (number !== this.number) return;
      byId("about").hidden = true;
      said("");
      failed(error);
    }
  }

  async restore({ task, weights, options, webgpu }) {
    if (this.restoring) return;
    this.restoring = true;
    const { file, number } = this.scan;
    const about = { ...this.about.said, base: BASE };
    fine();
    this.running(true);
    byId("plan").replaceChildren();
    try {
      const made = await this.work.ask("restore", { file, number, task, weights, options, about, webgpu }, this.clock());
      stage(progress({ state: "done", outputs: { seconds: made.record.seconds } }));
      said(`${file.name} is restored.`);
      await this.show(file, made);
    } catch (error) {
      const cancelled = error instanceof Cancelled;
      stage(cancelled ? "Cancelled" : "Failed");
      said(cancelled ? `${file.name}: cancelled` : "");
      if (!cancelled) failed(error);
    } finally {
      this.restoring = false;
      this.running(false);
    }
  }

  // Says how far it is, and from the slices done how long it takes.
  clock() {
    let began = 0;
    return ({ stage: name, done = 0, all = 0, lines }) => {
      if (lines) byId("plan").replaceChildren(...lines.map((text) => element("li", { text })));
      const now = performance.now();
      if (!began && !all) this.last = now;
      if (all && !began) began = this.last;
      const left = all ? ((now - began) / 1000 / done) * (all - done) : null;
      stage(progress({ state: "running", stage: name, done, all, seconds_left: left }));
      const bar = byId("bar");
      if (all) [bar.max, bar.value] = [all, done];
      else bar.removeAttribute("value");
    };
  }

  running(on) {
    this.busy = on;
    byId("running").hidden = !on;
    byId("start").disabled = on;
    for (const id of ["pick", "sample"]) byId(id).disabled = on;
    if (on) byId("cancel").focus(); // on a phone, this shows the progress
    else if (document.activeElement === document.body) byId("start").focus({ preventScroll: true });
  }

  async show(file, { before, after, difference, output, stem, record }) {
    if (this.job) this.viewer.close(this.job.id);
    this.addresses.splice(0).forEach((address) => URL.revokeObjectURL(address));
    const address = (blob) => {
      this.addresses.push(URL.createObjectURL(blob));
      return this.addresses.at(-1);
    };
    const told = address(new Blob([`${JSON.stringify(record, null, 2)}\n`], { type: "application/json" }));
    const outputs = {
      ...record,
      fit: record.fit.outcome,
      before: address(before),
      after: address(after),
      difference: address(difference),
      maps: [],
      notes: [],
      report: null,
      record: told,
      downloads: { nifti: address(output.blob), record: told },
      names: { nifti: output.name, record: `${stem}-restored.restoration.json` },
    };
    this.job = { id: `try-${Date.now()}`, name: file.name, outputs };
    byId("viewer").scrollIntoView({ block: "nearest" }); // on a phone it lies below
    await this.viewer.show(this.job);
  }
}

function failed(error) {
  byId("error").textContent = error.message;
  byId("error").hidden = false;
  byId("error").scrollIntoView({ block: "nearest" }); // on a phone it may be far above
}

function said(text) {
  byId("status").textContent = text;
}

function stage(text) {
  byId("stage-text").textContent = text;
}

const fine = () => (byId("error").hidden = true);

async function start() {
  new Page(JSON.parse(await (await fetched(new URL("about.json", BASE), "about.json", "load the page again, or build it again")).text()));
  said("");
}

start().catch(failed);
