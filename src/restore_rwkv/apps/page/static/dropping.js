// What is dropped anywhere on the page; it is given to `take` as the event's `dataTransfer`.

import { byId } from "./words.js";

// The whole page takes files: one dropped beside the zone would replace the page otherwise.
export function onDrop(take) {
  const zone = byId("drop");
  addEventListener("dragover", (event) => {
    event.preventDefault();
    zone.classList.add("over");
  });
  addEventListener("dragleave", (event) => {
    if (!event.relatedTarget) zone.classList.remove("over");
  });
  addEventListener("drop", (event) => {
    event.preventDefault();
    zone.classList.remove("over");
    take(event.dataTransfer);
  });
}
