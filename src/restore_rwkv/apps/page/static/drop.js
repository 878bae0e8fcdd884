// Files that are dropped or chosen, sent as one group.

import { post, put, remove } from "./api.js";
import { onDrop } from "./dropping.js";
import { byId, bytes } from "./words.js";

const AT_ONCE = 3;

// `cap` is a promise of bytes: a file that comes before it is known has to wait.
export function startDrop(cap, { failed, sent }) {
  const give = async (find) => {
    try {
      await send(await find(), await cap);
      sent();
    } catch (error) {
      if (error.name !== "AbortError") failed(error);
    }
  };
  cap.then((most) => (byId("cap").textContent = `Up to ${bytes(most)}. Nothing leaves this machine.`), () => {});
  for (const [button, input] of [["pick-files", "files"], ["pick-folder", "folder"]]) {
    byId(button).addEventListener("click", () => byId(input).click());
    byId(input).addEventListener("change", (event) => {
      const chosen = [...event.target.files].map((file) => ({ name: file.webkitRelativePath || file.name, file }));
      event.target.value = "";
      if (chosen.length) give(async () => chosen);
    });
  }
  onDrop((data) => {
    const entries = [...data.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
    const files = [...data.files];
    if (entries.length) give(() => filesOf(entries));
    else if (files.length) give(async () => files.map((file) => ({ name: file.name, file })));
  });
}

// All files below entries, folders too. A folder gives its entries in parts.
async function filesOf(entries) {
  const found = [];
  const waiting = [...entries];
  while (waiting.length) {
    const entry = waiting.shift();
    if (entry.isFile) {
      const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
      found.push({ name: entry.fullPath.replace(/^\/+/, "") || file.name, file });
    } else {
      const reader = entry.createReader();
      for (;;) {
        const part = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
        if (!part.length) break;
        waiting.push(...part);
      }
    }
  }
  if (!found.length) throw new Error("The folder is empty; drop one that holds a scan.");
  return found;
}

async function send(files, cap) {
  const all = files.reduce((sum, { file }) => sum + file.size, 0);
  const name = files.length === 1 ? files[0].name : `${files.length} files`;
  if (all > cap) {
    throw new Error(
      `${name}: ${bytes(all)} are more than the ${bytes(cap)} that can be dropped; start ` +
        "restore-rwkv open with the folder of the scan, or with a larger --upload-cap",
    );
  }
  const group = [...crypto.getRandomValues(new Uint8Array(12))].map((n) => n.toString(16).padStart(2, "0")).join("");
  const stop = new AbortController();
  const leave = (event) => event.preventDefault();
  const done = new Map();
  const tell = (key, count) => {
    done.set(key, count);
    const sum = [...done.values()].reduce((a, b) => a + b, 0);
    byId("upload-progress").value = all ? Math.min(1, sum / all) : 0;
  };
  byId("upload-text").textContent = `Copying ${name}, ${bytes(all)}`;
  byId("upload-progress").value = 0;
  byId("upload-cancel").onclick = () => stop.abort();
  byId("uploading").hidden = false;
  addEventListener("beforeunload", leave);
  try {
    const queue = files.entries();
    const sender = async () => {
      for (const [key, { name: path, file }] of queue) {
        stop.signal.throwIfAborted();
        await put(path, file, group, (count) => tell(key, count), stop.signal);
        tell(key, file.size);
      }
    };
    await Promise.all(Array.from({ length: Math.min(AT_ONCE, files.length) }, sender));
    await post(`/api/uploads/${group}/done`);
  } catch (error) {
    stop.abort();
    await remove(`/api/uploads/${group}`).catch(() => {}); // it may not have begun
    throw error;
  } finally {
    removeEventListener("beforeunload", leave);
    byId("uploading").hidden = true;
  }
}
