// The page of `ofa serve`: asks for jobs, has its worker do them, and sends the answers back, until it is closed.

const HEARTBEAT_MS = 5000;
const LONGEST_PAUSE_MS = 15000;
const SLOWER = 0.85; // speed relative to the first runs below which the device is probably warm

class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

async function post(path, body) {
  const options = { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body) };
  const response = await fetch(path, options);
  const answer = await response.json();
  if (!response.ok) throw new Refused(response.status, answer.error);
  return answer;
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const element = (id) => document.getElementById(id);

function show(id, text) {
  if (element(id).textContent !== text) element(id).textContent = text;
  element(id).hidden = text === "";
}

function showFacts(facts) {
  const items = Object.entries(facts).flatMap(([name, text]) => {
    const [dt, dd] = [document.createElement("dt"), document.createElement("dd")];
    dt.textContent = name;
    dd.textContent = text;
    return [dt, dd];
  });
  element("facts").replaceChildren(...items);
}

// What the device is

async function about() {
  const data = navigator.userAgentData;
  const hints = ["architecture", "model", "platformVersion"];
  const more = data ? await data.getHighEntropyValues(hints).catch(() => ({})) : {};
  const agent = navigator.userAgent;
  const brand = data?.brands.filter(({ brand }) => !/not.*brand/i.test(brand)).at(-1);
  const named = /(Firefox|Version|Chrome)\/(\d+)/.exec(agent);
  const browser = brand ? `${brand.brand} ${brand.version}` : named ? `${named[1].replace("Version", "Safari")} ${named[2]}` : agent;
  const system = data?.platform ?? /\(([^)]*)\)/.exec(agent)?.[1] ?? navigator.platform;
  const cores = `${navigator.hardwareConcurrency ?? "?"} cores`;
  return {
    processor: [more.model || more.architecture || navigator.platform, cores].filter(Boolean).join(", "),
    os: [system, more.platformVersion].filter(Boolean).join(" "),
    browser,
  };
}

// The worker, which loads and runs models

class Runtime {
  constructor() {
    this.worker = new Worker("worker.js", { type: "module" });
    this.worker.onmessage = ({ data }) => this.settle(data);
    this.worker.onerror = (event) => this.settle({ error: event.message ?? "the worker failed" });
  }

  settle(answer) {
    this.done?.(answer);
    this.done = null;
  }

  ask(message, transfer = []) {
    return new Promise((resolve) => {
      this.done = resolve;
      this.worker.postMessage(message, transfer);
    });
  }

  end() {
    this.worker.terminate();
    this.settle({ error: "the runtime was started anew" });
  }
}

let runtime = null;

async function perform(page, job) {
  if (job.do === "start") {
    runtime?.end();
    runtime = new Runtime();
    const answer = await runtime.ask(job);
    if (answer.about) facts = { ...facts, runtime: `onnxruntime-web ${answer.about.runtime_version}, ${job.backend}`, clock: answer.about.clock };
    showFacts(facts);
    return answer;
  }
  if (runtime === null) return { error: "the runtime is not started", unknown: true };
  if (job.do === "load") {
    const response = await fetch(`api/models/${job.model}?page=${page}`);
    if (!response.ok) return { error: `the model did not arrive (${response.status})` };
    const bytes = await response.arrayBuffer();
    return runtime.ask({ ...job, bytes }, [bytes]);
  }
  for (;;) {
    await visible();
    const before = hiddenTimes;
    const answer = await runtime.ask(job);
    if (hiddenTimes === before) {
      if (answer.milliseconds) noteSpeed(job.model, answer.milliseconds);
      return answer;
    }
  }
}

// A hidden page is slowed down by browsers, so it does not measure

let hiddenTimes = 0;
let seen = [];

document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    hiddenTimes += 1;
  } else {
    keepScreenOn();
    seen.forEach((resolve) => resolve());
    seen = [];
  }
});

function visible() {
  return document.hidden ? new Promise((resolve) => seen.push(resolve)) : Promise.resolve();
}

async function keepScreenOn() {
  try {
    await navigator.wakeLock.request("screen");
    return true;
  } catch {
    return false;
  }
}

// How fast the device is, compared with the first times that the same models ran

const first = new Map();
let speed = 1;

function noteSpeed(model, times) {
  const ms = times.reduce((sum, one) => sum + one, 0) / times.length;
  if (!first.has(model)) first.set(model, ms);
  else if (ms > 0) speed = 0.98 * speed + 0.02 * Math.min(first.get(model) / ms, 2);
}

let began = null;

function showProgress(progress, job) {
  if (progress === null) {
    show("status", "Connected, waiting for work");
    return;
  }
  const [done, total] = progress;
  if (began === null || done < began.done || total !== began.total) began = { done, total, at: performance.now() };
  const share = total > 0 ? done / total : 0;
  element("progress").value = share;
  element("progress").hidden = false;
  if (done >= total) {
    show("status", job ? "Measuring" : "Measured. This page may be closed, or left open for what comes next");
    show("remaining", "");
    return;
  }
  show("status", "Measuring");
  const elapsed = (performance.now() - began.at) / 1000;
  const seconds = ((total - done) * elapsed) / Math.max(done - began.done, 1);
  const left = elapsed < 10 ? "" : seconds < 90 ? `, about ${Math.ceil(seconds / 10) * 10} s left` : `, about ${Math.round(seconds / 60)} min left`;
  show("remaining", `${(100 * share).toFixed(0)} % done${left}`);
}

let staysOn = true;

function advise() {
  const notes = [];
  if (!staysOn) notes.push("Keep the screen on and this page in front.");
  if (speed < SLOWER) notes.push(`The device runs at ${(100 * speed).toFixed(0)} % of its first speed: let it cool, or plug it in.`);
  show("advice", notes.join(" "));
}

// Asking for work

let facts = {};

async function work(page) {
  let answer = null;
  let failures = 0;
  for (;;) {
    let next;
    try {
      next = await post("api/next", { page, answer });
      failures = 0;
    } catch (error) {
      if (error instanceof Refused) throw error;
      failures += 1;
      show("status", "The computer does not answer, trying again");
      await pause(Math.min(500 * 2 ** failures, LONGEST_PAUSE_MS));
      continue;
    }
    showProgress(next.progress, next.job);
    advise();
    answer = next.job && { job: next.job.id, ...(await perform(page, next.job).catch((error) => ({ error: String(error) }))) };
  }
}

async function main() {
  const token = location.hash.slice(1);
  history.replaceState(null, "", location.pathname);
  const device = await about();
  facts = { device: device.processor, system: device.os, browser: device.browser };
  showFacts(facts);
  let page = null;
  setInterval(() => page && post("api/alive", { page, hidden: document.hidden }).catch(() => {}), HEARTBEAT_MS);
  addEventListener("pagehide", () => page && navigator.sendBeacon("api/leave", JSON.stringify({ page })));
  addEventListener("pageshow", (event) => event.persisted && location.reload());
  for (let failures = 0; ; ) {
    try {
      const joined = await post("api/join", { token, about: device });
      page = joined.page;
      failures = 0;
      showProgress(joined.progress, null);
      staysOn = await keepScreenOn();
      await work(page);
    } catch (error) {
      page = null;
      if (error instanceof Refused && error.status !== 404) {
        show("status", "Not connected");
        show("advice", error.message);
        return;
      }
      failures += 1;
      show("status", "The computer does not answer, trying again");
      await pause(Math.min(500 * 2 ** failures, LONGEST_PAUSE_MS));
    }
  }
}

main();
