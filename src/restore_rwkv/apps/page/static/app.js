// The page: its parts, and what they tell each other.

import { get, listen } from "./api.js";
import { startDrop } from "./drop.js";
import { Jobs } from "./jobs.js";
import { Options } from "./options.js";
import { Scans } from "./scans.js";
import { Viewer } from "./viewer.js";
import { byId } from "./words.js";

const AWAITED = "awaited"; // the job that this tab started last, to be shown when it is done

function failed(error) {
  byId("error").textContent = error.message;
  byId("error").hidden = false;
}

function said(text) {
  byId("status").textContent = text;
}

const fine = () => (byId("error").hidden = true);

async function start() {
  const asked = get("/api/state");
  startDrop(asked.then((state) => state.upload_cap), { failed, sent: fine });
  const state = await asked;
  byId("machine").textContent = `Version ${state.version}, on ${state.device.name}${state.device.name === "cpu" ? ` with ${state.device.threads} threads` : ""}${state.folder ? `, folder ${state.folder}` : ""}`;
  byId("notice").textContent = state.notice;
  const viewer = new Viewer({ failed, said });
  const options = new Options(state, {
    failed,
    started(job) {
      fine();
      sessionStorage.setItem(AWAITED, job.id);
      jobs.put(job);
      said(`${job.name} is queued.`);
    },
  });
  const show = async (job) => {
    sessionStorage.removeItem(AWAITED);
    history.replaceState(null, "", `#job=${job.id}`);
    jobs.mark(job.id);
    fine();
    byId("viewer").scrollIntoView({ block: "nearest" }); // on a phone it lies below
    try {
      await viewer.show(job);
    } catch (error) {
      failed(error);
    }
  };
  const jobs = new Jobs({
    show,
    said,
    failed,
    gone(id) {
      viewer.close(id);
      if (location.hash === `#job=${id}`) history.replaceState(null, "", "/");
    },
  });
  const arrived = (job) => {
    jobs.put(job);
    if (job.state === "done" && sessionStorage.getItem(AWAITED) === String(job.id)) show(job);
  };
  const scans = new Scans({ failed, chosen: (scan) => options.show(scan) });
  jobs.replace(state.jobs);
  const linked = jobs.jobs.get(Number(location.hash.slice("#job=".length)));
  if (linked?.state === "done") show(linked);
  let away = false;
  listen({
    job: arrived,
    scans: () => scans.load(),
    lost() {
      away = true;
      said("The page's server does not answer. Is restore-rwkv open still running?");
    },
    async opened() {
      if (away) said("");
      away = false;
      try {
        jobs.replace((await get("/api/state")).jobs);
      } catch (error) {
        failed(error);
      }
    },
  });
}

start().catch(failed);
