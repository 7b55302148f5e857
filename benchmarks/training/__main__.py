"""Run what is missing of the comparison and write its page: `python -m benchmarks.training [SEEDS]`.

3 seeds by default, each under 90 minutes on 2 cores. Each training's result is stored in docs/results/training/, so an
interrupted comparison resumes. Remove the files to measure anew.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

from benchmarks.training.page import write_training_page
from benchmarks.training.results import COSTS, alone_key, phase_key, read, seed_path, supernet_key
from benchmarks.training.strategies import COMPARED_WITH_ALONE, LARGE, TRAININGS, epochs_for
from benchmarks.training.tasks import TASKS, spread_archs
from ofa.core.files import write_json


class Job(NamedTuple):
    """A training: the file and the key of its result, the settings of `benchmarks.training.jobs`, its processes."""

    path: Path
    key: str
    settings: dict[str, Any]
    processes: int = 1


def main(n_seeds: int) -> None:
    """Compare inherited weights with training alone for all seeds, then strategies; write the page in any case."""
    seeds = range(n_seeds)
    try:
        run_missing([job for seed in seeds for job in inherited_and_alone(seed)], at_once=2)
        run_missing([Job(COSTS, "cnn", {"kind": "costs", "task": "cnn"})], at_once=1)  # timed, so nothing else runs
        trainings = [job for seed in seeds for job in strategies(seed)]
        run_missing([job for job in trainings if job.processes == 1], at_once=2)
        run_missing([job for job in trainings if job.processes > 1], at_once=1)
    finally:
        write_training_page(n_seeds)


def inherited_and_alone(seed: int) -> Iterator[Job]:
    """Yield the networks trained alone, the largest first, then the supernet of each task."""
    for name, task in TASKS.items():
        for i, arch in reversed(list(enumerate(spread_archs(task.create_family(), task.n_alone)))):
            settings = {"kind": "alone", "task": name, "arch": dict(arch), "seed": seed, "epochs": task.epochs}
            yield Job(seed_path(seed), alone_key(name, i), settings)
    for name, task in TASKS.items():
        settings = {"kind": "supernet", "task": name, "strategy": LARGE, "seed": seed, "epochs": [task.epochs]}
        yield Job(seed_path(seed), supernet_key(name, COMPARED_WITH_ALONE), settings)


def strategies(seed: int) -> Iterator[Job]:
    """Yield the trainings of the comparison of strategies, with the epochs that their budgets allow."""
    epoch_seconds = read(COSTS)["cnn"]
    for name, training in TRAININGS.items():
        budget = training.cost_share * TASKS["cnn"].epochs * epoch_seconds[phase_key(LARGE, 0)]
        epochs = epochs_for(training.strategy, budget, epoch_seconds)
        settings = {"kind": "supernet", "task": "cnn", "strategy": training.strategy, "seed": seed, "epochs": epochs}
        settings["different_archs"] = training.different_archs
        yield Job(seed_path(seed), supernet_key("cnn", name), settings, training.processes)


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
        command = [sys.executable, *launcher, "-m", "benchmarks.training.jobs", str(settings), str(result)]
        if subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}).returncode:
            raise RuntimeError(f"{job.key!r} failed; see its error above, mend it, then start again to resume")
        with lock:
            job.path.parent.mkdir(parents=True, exist_ok=True)
            write_json(job.path, read(job.path) | {job.key: json.loads(result.read_text())})
    return f"{job.path.stem}: {job.key}"


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
