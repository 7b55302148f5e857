// Which level to run: the policies of `export.policies` in Python, with the same decisions. States are plain objects.

const RETURN_SHARE = 0.9; // a slower level returns once its expected latency is below the bound by a tenth
const RELAPSE_S = 900; // a return that fails within this time doubles the wait before the next one ...
const MAX_HOLD_S = 3600; // ... up to this

/** Level 0 above the first threshold of the charge, and on mains power; the next level down to the second, and so on. */
export class BatteryPolicy {
  constructor(thresholdsPercent, hysteresisPercent = 3) {
    this.thresholds = thresholdsPercent;
    this.hysteresis = hysteresisPercent;
  }

  /** An equal share of the charge for each level: 75, 50 and 25 percent for 4 levels. */
  static even(levels) {
    return new BatteryPolicy(Array.from({ length: levels - 1 }, (_, i) => (100 * (levels - i - 1)) / levels));
  }

  decide(state, seen) {
    const level = this.level(seen.battery.percent, state, seen.battery.charging);
    return [level, level];
  }

  level(percent, current, charging) {
    if (charging) return 0;
    const fastest = this.thresholds.filter((threshold) => percent <= threshold).length;
    if (current === null) return fastest;
    const slowestReturn = this.thresholds.filter((threshold) => percent <= threshold + this.hysteresis).length;
    return Math.max(fastest, Math.min(current, slowestReturn));
  }
}

/** The level of another policy, or a faster one while the measured latency stays above a bound. */
export class LatencyGuard {
  constructor(policy, latenciesMs, boundMs, patienceS = 30) {
    this.policy = policy;
    this.latencies = latenciesMs;
    this.bound = boundMs;
    this.patience = patienceS;
  }

  decide(given, seen) {
    const times = { seen: -Infinity, above: null, below: null, hold: this.patience, returned: -Infinity };
    const begin = { inner: null, slowest: 0, ...times };
    const state = given ?? begin;
    const [level, inner] = this.policy.decide(state.inner, seen);
    const next = { ...this.watched(state, seen), inner };
    return [Math.max(level, next.slowest), next];
  }

  watched(state, { timeS, level, latencyMs }) {
    if (latencyMs === null || level === null) return state;
    const slowdown = latencyMs / this.latencies[level];
    const since = timeS - state.seen;
    if (latencyMs > this.bound) {
      const above = lasting(state.above, since, this.patience);
      const later = { ...state, seen: timeS, above, below: null };
      return above >= this.patience ? this.faster(later, timeS, level, slowdown) : later;
    }
    const calm = { ...state, seen: timeS, above: null };
    const slower = calm.slowest - 1;
    if (slower < 0 || this.latencies[slower] * slowdown > RETURN_SHARE * this.bound) return { ...calm, below: null };
    const below = lasting(calm.below, since, calm.hold);
    if (below < calm.hold) return { ...calm, below };
    return { ...calm, slowest: slower, below: null, returned: timeS };
  }

  faster(state, timeS, level, slowdown) {
    const fits = this.latencies.findIndex((latency) => latency * slowdown <= this.bound);
    const last = this.latencies.length - 1;
    const slowest = Math.min(Math.max(level + 1, fits < 0 ? last + 1 : fits), last);
    if (slowest <= state.slowest) return state;
    const relapse = timeS - state.returned < RELAPSE_S;
    const hold = relapse ? Math.min(2 * state.hold, Math.max(MAX_HOLD_S, this.patience)) : this.patience;
    return { ...state, slowest, above: null, hold };
  }
}

/** For how long something has lasted: `since` longer than so far, of which half of what is needed counts. */
function lasting(soFar, since, needed) {
  return soFar === null ? 0 : soFar + Math.min(since, needed / 2);
}
