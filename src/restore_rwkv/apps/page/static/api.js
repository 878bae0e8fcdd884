// Requests to the server of the page. What it refuses comes as one line in an Error.

import { request } from "./request.js";

export { get } from "./request.js";

export const remove = (path) => request(path, { method: "DELETE" });

export const post = (path, value) =>
  request(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(value ?? {}),
  });

// Sends one file. `told` gets the bytes sent so far; `signal` stops it.
export function put(name, file, group, told, signal) {
  const path = name.split("/").map((part) => encodeURIComponent(part.toWellFormed?.() ?? part)).join("/");
  return new Promise((resolve, reject) => {
    const sender = new XMLHttpRequest();
    sender.open("PUT", `/api/uploads/${path}`);
    sender.setRequestHeader("X-Upload", group);
    sender.setRequestHeader("Content-Type", "application/octet-stream");
    sender.upload.onprogress = (event) => told(event.loaded);
    sender.onload = () => {
      if (sender.status === 201) return resolve();
      let line = `${name}: the server answers ${sender.status}`;
      try {
        line = JSON.parse(sender.responseText).error || line;
      } catch {
        // not JSON: the status has to do
      }
      reject(new Error(line));
    };
    sender.onerror = () => reject(new Error(`${name}: could not be sent; drop it again`));
    sender.onabort = () => reject(new DOMException("stopped", "AbortError"));
    signal.addEventListener("abort", () => sender.abort(), { once: true });
    sender.send(file);
  });
}

// Listens to events while the tab is visible: browsers open few connections to one server.
export function listen({ job, scans, opened, lost }) {
  let source = null;
  const open = () => {
    if (source || document.hidden) return;
    source = new EventSource("/api/events");
    source.addEventListener("job", (event) => job(JSON.parse(event.data)));
    source.addEventListener("scans", () => scans());
    source.onopen = opened;
    source.onerror = () => {
      lost();
      if (source?.readyState === EventSource.CLOSED) {
        source = null;
        setTimeout(open, 3000);
      }
    };
  };
  const close = () => {
    source?.close();
    source = null;
  };
  document.addEventListener("visibilitychange", () => (document.hidden ? close() : open()));
  window.addEventListener("pagehide", close);
  window.addEventListener("pageshow", open);
  open();
}
