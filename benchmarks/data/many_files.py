"""A million files: the time until a training takes its first step, and memory.

Each measurement is a process of its own, which runs this module with the folder and the time at which it was started.
"""

import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import ofa
from benchmarks.data.pictures import small_jpeg_folder
from benchmarks.page import table
from ofa.data.config import DataConfig

N_FILES, N_FEW = 1_000_000, 1_000
OPTIONS = {"num_classes": 100, "resolutions": [32], "width_mult": 0.25}
BATCH_SIZE, WORKERS = 64, 2


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
        seconds = [f"{start[key]:.1f}" for key in ("load_s", "first_step_s")]
        rows.append(" | ".join([f"{n:,}", name.partition(", ")[2], *seconds, *per_file]))
    return [
        "## Many files",
        f"JPEG files of 32 pixels in {OPTIONS['num_classes']} folders of classes, on a warm disk. *List* is the time "
        "to find, check and split them; *first step* is the time from the start of the process to the end of the first "
        "training step, imports included. Memory is that of the process after it has the list, and what a worker that "
        "loads images has for itself alone, each less that with few files.",
        table("files | start | list s | first step s | bytes per file | bytes per file and worker", rows),
    ]


def _start(folder: Path, cache: Path) -> dict[str, float]:
    command = [sys.executable, "-W", "ignore", "-m", "benchmarks.data.many_files", str(folder), str(time.time())]
    environment = os.environ | {"XDG_CACHE_HOME": str(cache)}
    result: dict[str, float] = json.loads(subprocess.check_output(command, text=True, env=environment))
    return result


def main(folder: Path, started: float) -> None:
    """Load the data set and train one step; print times in s and memory in bytes."""
    family = ofa.create_family("small_mobilenet_v3", **OPTIONS)
    supernet, before, start = ofa.Supernet(family), _memory("self", "Rss"), time.time()
    data = ofa.load_data(DataConfig(name="image_folder", folder=folder))
    result = {"load_s": time.time() - start, "list": _memory("self", "Rss") - before}

    def stop(*_: object) -> None:
        result["first_step_s"] = time.time() - started
        workers = [str(process.pid) for process in multiprocessing.active_children()]
        result["worker"] = max(_memory(pid, "Private_Clean") + _memory(pid, "Private_Dirty") for pid in workers)
        raise InterruptedError

    config = ofa.TrainConfig.model_validate(
        {"batch_size": BATCH_SIZE, "phases": [{"strategy": "sandwich", "epochs": 1}]}
    )
    with suppress(InterruptedError), tempfile.TemporaryDirectory() as run:
        ofa.train(supernet, data, config, folder=Path(run), workers=WORKERS, on_progress=stop)
    print(json.dumps(result))


def _memory(pid: str, kind: str) -> int:
    """Return memory of a process in bytes, as Linux counts it."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{kind}:"))


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
