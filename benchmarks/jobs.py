"""Trainings in processes of their own, several at once, whose results are kept by name in JSON files."""

import json
import os
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

from ofa.core.files import write_json

_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    # Let glibc keep freed memory for the next step, as the command line does: a training step takes 15 % less.
    "MALLOC_TRIM_THRESHOLD_": str(2**31 - 1),
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
}


class Job(NamedTuple):
    """A piece of work: a module that is run with the paths of its settings and of its result.

    Attributes:
        path: file of the result, a dictionary by key.
        key: name of the result.
        module: run as `python -m MODULE SETTINGS RESULT`, with one thread.
        settings: written to SETTINGS.
        processes: that torchrun starts.
    """

    path: Path
    key: str
    module: str
    settings: dict[str, Any]
    processes: int = 1


def read(path: Path) -> dict[str, Any]:
    """Return the results in a file by name of training; none if there is no file yet."""
    content: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return content


def run_missing(jobs: list[Job], at_once: int) -> None:
    """Run the jobs that have no result yet, `at_once` in parallel; if one fails, finish those beside it and raise."""
    missing = [job for job in jobs if job.key not in read(job.path)]
    start, lock, pool = time.monotonic(), Lock(), ThreadPoolExecutor(at_once)
    try:
        for done, future in enumerate(as_completed([pool.submit(_run, job, lock) for job in missing]), 1):
            print(f"{time.monotonic() - start:6.0f} s  {done}/{len(missing)}  {future.result()}", flush=True)
    finally:
        pool.shutdown(cancel_futures=True)


def _run(job: Job, lock: Lock) -> str:
    """Run a job in processes of its own and store its result; returns its name."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(job.processes)]
    launcher = torchrun if job.processes > 1 else []
    with tempfile.TemporaryDirectory() as folder:
        settings, result = Path(folder, "settings.json"), Path(folder, "result.json")
        write_json(settings, job.settings)
        command = [sys.executable, *launcher, "-m", job.module, str(settings), str(result)]
        if subprocess.run(command, env=os.environ | _ENVIRONMENT).returncode:
            raise RuntimeError(f"{job.key!r} failed; see its error above, mend it, then start again to resume")
        with lock:
            job.path.parent.mkdir(parents=True, exist_ok=True)
            write_json(job.path, read(job.path) | {job.key: json.loads(result.read_text())})
    return f"{job.path.stem}: {job.key}"
