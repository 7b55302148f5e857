"""The machine that a runtime runs on, as latency tables record it, and the timing of runs on it. Free of torch."""

import platform
from collections.abc import Callable, Mapping
from pathlib import Path
from time import perf_counter_ns
from typing import Any

from export.model_files import FILE_KINDS

_CPUINFO = Path("/proc/cpuinfo")


def operating_system() -> str:
    """Return the system and the processor's architecture, such as "Linux x86_64"."""
    return f"{platform.system()} {platform.machine()}"


def processor() -> str:
    """Return the model name of the processor; on a system without one, its architecture and part numbers."""
    try:
        lines = _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    pairs = [(name.strip(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
    names = [value for name, value in pairs if name in ("model name", "Model", "Hardware") and value]
    parts = sorted({value for name, value in pairs if name == "CPU part"})
    return next(iter(names), "") or platform.processor() or " ".join([platform.machine(), *parts])


def is_this_machine(description: Mapping[str, Any]) -> bool:
    """Return whether a device's description, as a latency table records it, is of such a machine.

    Its runtime must be one that the runtime of bundles uses.
    """
    here = {"processor": processor(), "os": operating_system()}
    runs = description.get("runtime") in ("onnxruntime", *(kind.runtime for kind in FILE_KINDS.values()))
    return runs and all(description.get(key) == value for key, value in here.items())


def time_runs(run: Callable[[], object], n: int) -> list[float]:
    """Return the milliseconds of each of `n` runs, after one that is not timed and fills the processor's caches."""
    clock, times_ms = perf_counter_ns, []
    run()
    for _ in range(n):
        start = clock()
        run()
        times_ms.append((clock() - start) / 1e6)
    return times_ms
