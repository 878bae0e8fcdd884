// The worker as seen from the page: questions, answers, and an end to what takes too long.

const MODULE = new URL("worker.js", import.meta.url).href;

export class Cancelled extends Error {}

export class Work {
  constructor() {
    this.waiting = new Map();
    this.count = 0;
  }

  // Asks for "look" or "restore"; `progress` hears of what is done meanwhile.
  ask(kind, request, progress = () => {}) {
    this.worker ??= this.started();
    const id = ++this.count;
    return new Promise((resolve, reject) => {
      this.waiting.set(id, { resolve, reject, progress });
      this.worker.postMessage({ id, kind, ...request });
    });
  }

  // A slice that is being computed cannot be interrupted, so the worker ends.
  stop() {
    this.ended(new Cancelled("cancelled"));
  }

  ended(error) {
    this.worker?.terminate();
    this.worker = null;
    for (const { reject } of this.waiting.values()) reject(error);
    this.waiting.clear();
  }

  // From a blob, so that the policy of the page, which allows no request to elsewhere, holds for it too.
  started() {
    const address = URL.createObjectURL(new Blob([`import ${JSON.stringify(MODULE)};`], { type: "text/javascript" }));
    const worker = new Worker(address, { type: "module" });
    worker.addEventListener("message", ({ data: { id, progress, done, failed } }) => {
      URL.revokeObjectURL(address); // it has been loaded
      const asked = this.waiting.get(id);
      if (!asked) return;
      if (progress) return asked.progress(progress);
      this.waiting.delete(id);
      if (failed) asked.reject(new Error(failed));
      else asked.resolve(done);
    });
    worker.addEventListener("error", (event) => {
      event.preventDefault();
      this.ended(new Error(`The page's worker ended (${event.message ?? "its files could not be loaded"}); load the page again.`));
    });
    return worker;
  }
}
