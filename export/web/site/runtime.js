// Serves a bundle in a browser: one level at a time, which a policy chooses by the battery and by measured latency.

import { BatteryPolicy, LatencyGuard } from "./policy.js";
import { preprocess } from "./preprocess.js";

const FORMAT = "ofa-bundle";
const VERSION = 3;
const MAINS = { percent: 100, charging: true }; // of a browser that does not tell

/** A level that is loaded, with the number of requests that run on it. */
class Loaded {
  constructor(level, session, record) {
    Object.assign(this, { level, session, record, running: 0, retired: false });
  }

  async run(input, ort) {
    this.running += 1;
    try {
      const { in_channels: channels, resolution } = this.record.preprocess;
      const images = new ort.Tensor("float32", input, [1, channels, resolution, resolution]);
      const begin = performance.now();
      const { logits } = await this.session.run({ images });
      return { logits: logits.data, latencyMs: performance.now() - begin };
    } finally {
      this.running -= 1;
      if (this.retired) await this.release();
    }
  }

  async release() {
    this.retired = true;
    if (this.running === 0) await this.session.release();
  }
}

/**
 * Serves the levels of one target of a bundle; only the level in use is fetched and loaded. Dispatches `level` when another
 * level serves.
 */
export class Runtime extends EventTarget {
  /**
   * Opens the bundle in a folder.
   *
   * @param {{folder?: URL|string, target?: string, boundMs?: number, policy?: object, battery?: () => object, threads?: number}} options
   *   `target`: by default the first. `boundMs`: run faster levels while a request takes longer. `policy`: of your own, with
   *   `decide(state, seen)`. `battery`: returns `{percent, charging}`; by default the browser's, or mains power where it does not tell.
   */
  static async open(options = {}) {
    const runtime = new Runtime();
    await runtime.start(options);
    return runtime;
  }

  async start({ folder = new URL(".", import.meta.url), target, boundMs, policy, battery, threads = 1 }) {
    this.folder = new URL(folder, document.baseURI);
    const manifest = await (await this.fetch("manifest.json")).json();
    if (manifest.format !== FORMAT || manifest.version !== VERSION) {
      throw new Error(`manifest.json is not a bundle of version ${VERSION}; make the bundle again`);
    }
    this.name = manifest.name;
    this.labels = manifest.labels;
    this.target = target ?? Object.keys(manifest.targets)[0];
    this.levels = manifest.levels.filter((level) => level.target === this.target);
    if (this.levels.length === 0) throw new Error(`there is no target ${target}; choose from ${Object.keys(manifest.targets).join(", ")}`);
    this.ort = await import("./vendor/ort.wasm.min.mjs");
    this.ort.env.wasm.wasmPaths = new URL("./vendor/", import.meta.url).href;
    this.ort.env.wasm.numThreads = crossOriginIsolated ? threads : 1;
    const byCharge = policy ?? BatteryPolicy.even(this.levels.length);
    const latencies = this.levels.map((level) => level.latency_ms);
    this.policy = boundMs === undefined ? byCharge : new LatencyGuard(byCharge, latencies, boundMs);
    this.state = null;
    this.times = [];
    this.loaded = null;
    this.fixed = null;
    this.readBattery = battery ?? (await browserBattery(() => this.update()));
    await this.update();
  }

  /** The level that serves the next request: a position in `levels`, which go from the slowest to the fastest. */
  get level() {
    return this.loaded.level;
  }

  /**
   * Classifies a picture, such as an ImageData.
   *
   * @returns {Promise<{label: string, probabilities: number[], logits: Float32Array, level: number, latencyMs: number}>}
   */
  async predict(picture) {
    const loaded = this.loaded;
    const { logits, latencyMs } = await loaded.run(preprocess(picture, loaded.record.preprocess), this.ort);
    if (loaded.level === this.level) this.times = [...this.times.slice(-31), latencyMs];
    const probabilities = softmax(logits);
    const label = this.labels[probabilities.indexOf(Math.max(...probabilities))];
    return { label, probabilities, logits, level: loaded.level, latencyMs };
  }

  /** Serves one level until further notice; null lets the policy choose again. */
  async fix(level) {
    this.fixed = level;
    await this.update();
  }

  /** Lets the policy decide now, and returns the level that serves from then on. */
  update() {
    this.updating = (this.updating ?? Promise.resolve()).catch(() => {}).then(() => this.decide());
    return this.updating;
  }

  async decide() {
    const sorted = [...this.times].sort((a, b) => a - b);
    const seen = {
      timeS: performance.now() / 1000,
      battery: this.readBattery(),
      level: this.loaded?.level ?? null,
      latencyMs: sorted.length > 0 ? sorted[Math.floor(sorted.length / 2)] : null,
    };
    const [chosen, state] = this.policy.decide(this.state, seen);
    this.state = state;
    this.times = [];
    const level = this.fixed ?? chosen;
    if (this.loaded?.level !== level) {
      const before = this.loaded;
      this.loaded = await this.load(level);
      await before?.release();
      this.dispatchEvent(new Event("level"));
    }
    return level;
  }

  async load(level) {
    const record = this.levels[level];
    const model = new Uint8Array(await (await this.fetch(record.file)).arrayBuffer());
    if (crypto.subtle !== undefined && (await sha256(model)) !== record.sha256) {
      throw new Error(`${record.file} does not match its checksum; copy the bundle again`);
    }
    const options = { executionProviders: ["wasm"], graphOptimizationLevel: "all", executionMode: "sequential" };
    const loaded = new Loaded(level, await this.ort.InferenceSession.create(model, options), record);
    const { in_channels: channels, resolution } = record.preprocess;
    await loaded.run(new Float32Array(channels * resolution * resolution), this.ort);
    return loaded;
  }

  async fetch(file) {
    const response = await fetch(new URL(file, this.folder));
    if (!response.ok) throw new Error(`${file} cannot be read (${response.status}); copy the whole bundle`);
    return response;
  }
}

/** Returns the probabilities of logits. */
export function softmax(logits) {
  const largest = Math.max(...logits);
  const exponentials = Array.from(logits, (logit) => Math.exp(logit - largest));
  const sum = exponentials.reduce((total, value) => total + value, 0);
  return exponentials.map((value) => value / sum);
}

// Returns a reading of the browser's battery whenever it is called; `changed` is called when it changes.
async function browserBattery(changed) {
  const battery = await navigator.getBattery?.().catch(() => undefined);
  if (battery === undefined) return () => MAINS;
  for (const event of ["levelchange", "chargingchange"]) battery.addEventListener(event, () => changed().catch(() => {}));
  return () => ({ percent: 100 * battery.level, charging: battery.charging });
}

async function sha256(content) {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", content));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
