// What is said of a result, and its files.

import { get } from "./request.js";
import { byId, duration, element, fit, signed, value } from "./words.js";

export function showResult(job) {
  const { outputs } = job;
  const unit = outputs.unit ?? "";
  byId("viewer-title").textContent = `4. Compare: ${job.name}`;
  const inUnit = (text) => `${text} ${unit}`.trim();
  const facts = [
    `Task ${outputs.task}, weights ${outputs.weights}`,
    outputs.seconds == null ? "" : `took ${duration(outputs.seconds)}`,
    fit(outputs.fit),
    outputs.change ? `mean change ${inUnit(signed(Number(outputs.change.mean.toPrecision(3))))}, largest ${inUnit(value(Number(outputs.change.largest.toPrecision(3))))}` : "",
    outputs.volumes > 1 ? `the first of ${outputs.volumes} volumes is shown` : "",
  ];
  byId("facts").textContent = facts.filter(Boolean).map((text) => text.trim()).join("; ");
  byId("remarks").replaceChildren(...[...outputs.warnings, ...outputs.notes].map((text) => element("li", { text })));
  const links = [];
  const names = { nifti: "Download as NIfTI", dicom: "Download as DICOM", record: "Download its record" };
  for (const [form, address] of Object.entries(outputs.downloads)) {
    links.push(element("a", { class: "button", href: address, download: outputs.names?.[form] ?? true, text: names[form] ?? "Download" }));
  }
  if (outputs.report) links.push(element("a", { class: "button", href: outputs.report, target: "_blank", rel: "noopener", text: "Fidelity report" }));
  byId("links").replaceChildren(...links);
  const record = byId("record");
  record.open = false;
  record.ontoggle = async () => {
    if (!record.open) return;
    try {
      byId("record-text").textContent = JSON.stringify(await get(outputs.record), null, 2);
    } catch (error) {
      byId("record-text").textContent = error.message;
    }
  };
}
