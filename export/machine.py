"""The machine that a runtime runs on, as latency tables record it. Free of torch."""

from __future__ import annotations

import platform
from pathlib import Path

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
