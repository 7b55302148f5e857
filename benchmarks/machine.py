"""The line on each page of results that says where it was measured."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from pathlib import Path

import onnxruntime
import timm
import torch


def machine() -> str:
    """Return one line: processor, cores, versions, date."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return (
        f"{models[0] if models else platform.machine()}, {os.cpu_count()} cores; Python {platform.python_version()}, "
        f"torch {torch.__version__}, timm {timm.__version__}, onnxruntime {onnxruntime.__version__}; "
        f"{datetime.now(UTC):%Y-%m-%d}"
    )
