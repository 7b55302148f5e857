// Loads models by onnxruntime-web and times their runs; answers one message after the other.

const TICKS = 50; // of the clock that a time takes at least
const MAX_BYTES = 512 * 2 ** 20; // of loaded models; beyond, those that ran longest ago are dropped
const MAX_RUNS = 1e6;

const SCRIPTS = { wasm: "./vendor/ort.wasm.min.mjs", webgpu: "./vendor/ort.webgpu.min.mjs" };
const models = new Map(); // in the order in which they ran
let ort = null;
let backend = "";
let tickMs = 0;

// The smallest step of the clock, in milliseconds.
function tick() {
  let smallest = Infinity;
  for (let i = 0; i < 20; i += 1) {
    const start = performance.now();
    let now = start;
    while (now === start) now = performance.now();
    smallest = Math.min(smallest, now - start);
  }
  return smallest;
}

async function start(job) {
  if (job.threads > 1 && !crossOriginIsolated) throw new Error("more than one thread needs https; serve with a certificate");
  if (job.backend === "webgpu" && !navigator.gpu) throw new Error("this browser has no WebGPU; use the backend wasm");
  backend = job.backend;
  ort = await import(SCRIPTS[backend]);
  ort.env.wasm.numThreads = job.threads;
  ort.env.wasm.wasmPaths = new URL("./vendor/", location.href).href;
  ort.env.logLevel = "error";
  tickMs = tick();
  const clock = tickMs < 0.02 ? "fine" : tickMs < 0.5 ? "0.1 ms" : "1 ms";
  return { about: { runtime_version: ort.env.versions.web ?? ort.env.versions.common, clock } };
}

async function load(job) {
  const size = job.bytes.byteLength;
  await drop(job.model);
  for (const name of [...models.keys()]) {
    if (size + loadedBytes() <= MAX_BYTES) break;
    await drop(name);
  }
  const options = { executionProviders: [backend], graphOptimizationLevel: "all", executionMode: "sequential" };
  const session = await ort.InferenceSession.create(new Uint8Array(job.bytes), options);
  models.set(job.model, { session, feeds: feeds(session), bytes: size });
  return {};
}

function loadedBytes() {
  return [...models.values()].reduce((sum, { bytes }) => sum + bytes, 0);
}

async function drop(name) {
  const model = models.get(name);
  models.delete(name);
  await model?.session.release();
}

// Inputs between -1 and 1, the same in each call; a size that is open is 1.
function feeds(session) {
  const inputs = {};
  for (const { name, type, shape } of session.inputMetadata) {
    if (type !== "float32") throw new Error(`input ${name} is ${type}, not float32`);
    const dims = shape.map((size) => (typeof size === "number" && size > 0 ? size : 1));
    const values = new Float32Array(dims.reduce((product, size) => product * size, 1));
    let state = 1;
    for (let i = 0; i < values.length; i += 1) {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      values[i] = state / 2 ** 31 - 1;
    }
    inputs[name] = new ort.Tensor("float32", values, dims);
  }
  return inputs;
}

// Times groups of runs that last long enough for the clock, and gives each run of a group the group's mean.
async function run(job) {
  const model = models.get(job.model);
  if (model === undefined) return { error: "the model is not loaded", unknown: true };
  models.delete(job.model);
  models.set(job.model, model);
  const { session, feeds: inputs } = model;
  await session.run(inputs);
  const times = [];
  while (times.length < job.n) {
    let count = 0;
    let elapsed = 0;
    const begin = performance.now();
    do {
      await session.run(inputs);
      count += 1;
      elapsed = performance.now() - begin;
    } while (elapsed < TICKS * tickMs && count < MAX_RUNS);
    for (let i = 0; i < count; i += 1) times.push(elapsed / count);
  }
  return { milliseconds: times.slice(0, job.n) };
}

const jobs = { start, load, run };

onmessage = async ({ data }) => {
  try {
    postMessage(await jobs[data.do](data));
  } catch (error) {
    postMessage({ error: String(error?.message ?? error).slice(0, 300) });
  }
};
