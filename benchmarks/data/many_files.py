"""A million files: the time until a training takes its first step, and memory."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.data.first_step import OPTIONS
from benchmarks.data.pictures import small_jpeg_folder
from benchmarks.page import table

N_FILES, N_FEW = 1_000_000, 1_000


def measure(folder: Path) -> dict[str, Any]:
    """Start a training on few files, and twice on many; each folder is read first, so that the disk is warm."""
    cache = folder / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    many, few = small_jpeg_folder(folder, N_FILES), small_jpeg_folder(folder, N_FEW)
    starts = {"few": few, "many, first": many, "many, second": many}
    for file in many.rglob("*.jpg"):
        file.read_bytes()
    return {name: _start(one, cache) for name, one in starts.items()}


def section(starts: dict[str, Any]) -> list[str]:
    """Return the section of the page."""
    few, rows = starts["few"], []
    for name, start in starts.items():
        n = N_FEW if name == "few" else N_FILES
        per_file = [f"{(start[key] - few[key]) / (n - N_FEW):.0f}" if n > N_FEW else "" for key in ("list", "worker")]
        seconds = [f"{start[key]:.1f}" for key in ("imports_s", "load_s", "first_step_s")]
        rows.append(" | ".join([f"{n:,}", name.partition(", ")[2], *seconds, *per_file]))
    return [
        "## Many files",
        f"JPEG files of 32 pixels in {OPTIONS['num_classes']} folders of classes, on a warm disk. *Imports* is the "
        "time from the start of the process until torch, timm and the supernet are there; *list* is the time to "
        "find, check and split the files; *first step* is the time from the start of the process to the end of the "
        "first training step. Memory is that of the process after it has the list, and what a worker that loads "
        "images has for itself alone, each less that with few files.",
        table("files | start | imports s | list s | first step s | bytes per file | bytes per file and worker", rows),
    ]


def _start(folder: Path, cache: Path) -> dict[str, float]:
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.data.first_step", str(folder), str(time.time())]
    environment = os.environ | {"XDG_CACHE_HOME": str(cache)}
    result: dict[str, float] = json.loads(subprocess.check_output(command, text=True, env=environment))
    return result
