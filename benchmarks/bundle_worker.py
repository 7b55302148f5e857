"""A worker of `benchmarks.bundle`: a fresh process that serves a bundle as on a device, without torch."""

import json
import sys
import time
from pathlib import Path

import numpy as np
import psutil

from export.policies.battery import Battery
from export.runtime import Runtime

SWITCHES, SECONDS = 6, 60.0


def measure(folder: Path, keep_ready: bool) -> dict[str, float]:
    """Return the processor time of loading, memory of the process, and the median time of a switch to a neighbor.

    Memory is in addition to what the process had before: its share of pages (PSS) while a level is served, with
    `keep_ready` together with its neighbors, and the peak of resident memory.
    """
    process, percent = psutil.Process(), [50.0]
    before_mib, peak_before_mib = pss_mib(process), peak_mib()
    start = time.process_time()
    runtime = Runtime(
        folder, battery=lambda: Battery(percent[0], False), poll_seconds=float("inf"), keep_ready=keep_ready
    )
    load_ms = 1e3 * (time.process_time() - start)
    side, channels = runtime.levels[0].preprocess.resolution, runtime.levels[0].preprocess.in_channels
    image = np.zeros((side, side, 3) if channels == 3 else (side, side), np.uint8)
    middle = runtime.level
    wait_until_ready(runtime, keep_ready)
    runtime.predict(image)
    memory_mib, peak = pss_mib(process) - before_mib, peak_mib() - peak_before_mib
    switches_ms = []
    for i in range(SWITCHES):
        percent[0] = 30.0 if i % 2 == 0 else 50.0
        start = time.perf_counter()
        level = runtime.update()
        switches_ms.append(1e3 * (time.perf_counter() - start))
        assert abs(level - middle) == 1 - i % 2
        wait_until_ready(runtime, keep_ready)
    return {"load_ms": load_ms, "memory_mib": memory_mib, "peak_mib": peak, "switch_ms": float(np.median(switches_ms))}


def wait_until_ready(runtime: Runtime, keep_ready: bool) -> None:
    """Wait until the neighbors of the level are loaded."""
    level, end = runtime.level, time.monotonic() + SECONDS
    near = tuple(i for i in (level - 1, level, level + 1) if 0 <= i < len(runtime.levels))
    while keep_ready and runtime.ready_levels != near:
        if time.monotonic() > end:
            raise TimeoutError(f"levels {near} are not ready after {SECONDS} s, but {runtime.ready_levels}")
        time.sleep(0.01)


def pss_mib(process: psutil.Process) -> float:
    """Return the process's proportional share of the memory it maps."""
    return float(process.memory_full_info().pss / 2**20)


def peak_mib() -> float:
    """Return the largest resident memory of this process so far, which unlike `ru_maxrss` leaves its parent out."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1]), sys.argv[2] == "ready")))
