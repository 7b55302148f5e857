"""Runs what is missing of the comparison, two trainings at once, and writes docs/results/training.md.

`python -m benchmarks.training [SEEDS]`: 3 seeds by default, about an hour each on 2 cores. Results are kept in
`runs/benchmark-training/`; a comparison that was stopped goes on where it was.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.training.page import write_page
from benchmarks.training.tasks import (
    DEFAULT,
    HALF,
    LABELS,
    SHARE,
    STRATEGIES,
    TASKS,
    TWO_PROCESSES,
    WHOLE,
    job_name,
    phase_key,
    spread_archs,
)

FOLDER = Path("runs/benchmark-training")
AT_ONCE = 2

Job = tuple[str, dict[str, Any]]


def main(n_seeds: int) -> None:
    run_all([(f"costs-{task}", {"kind": "costs", "task": task}) for task in TASKS], at_once=1)  # alone: it is timed
    for seed in range(n_seeds):
        run_all(list(jobs(seed)), AT_ONCE)
        run_all(list(jobs_of_two_processes(seed)), at_once=1)
        write_page(FOLDER, seed + 1)


def jobs(seed: int) -> Iterator[Job]:
    """Everything that one seed needs, the longest first."""
    for name in TASKS:
        yield _supernet(name, DEFAULT, seed, 1.0, WHOLE)
    yield _supernet("cnn", LABELS, seed, 1.0, WHOLE)
    for strategy in STRATEGIES:
        yield _supernet("cnn", strategy, seed, SHARE)
    for strategy in (DEFAULT, LABELS):
        yield _supernet("cnn", strategy, seed, SHARE / 2, HALF)
    for name, task in TASKS.items():
        for i, arch in reversed(list(enumerate(spread_archs(task.make(), task.alone)))):
            job = {"kind": "alone", "task": name, "arch": dict(arch), "seed": seed, "epochs": task.epochs}
            yield f"alone-{name}-{i}-{seed}", job


def jobs_of_two_processes(seed: int) -> Iterator[Job]:
    """The default strategy by two processes, which draw the same archs, or each its own."""
    for said, different in TWO_PROCESSES.items():
        name, job = _supernet("cnn", DEFAULT, seed, SHARE, said)
        yield name, job | {"settings": {"different_archs": different}}


def _supernet(task: str, strategy: str, seed: int, share: float, said: str = "") -> Job:
    seconds = json.loads((FOLDER / f"costs-{task}.json").read_text())
    budget = share * TASKS[task].epochs * seconds[phase_key(DEFAULT, 0)]
    job = {"kind": "supernet", "task": task, "strategy": strategy, "seed": seed, "budget": budget, "seconds": seconds}
    return job_name(task, strategy, seed, said), job


def run_all(wanted: list[Job], at_once: int) -> None:
    """Runs the jobs whose results are not there yet, each in a process of its own."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    todo = [(name, job) for name, job in wanted if not (FOLDER / f"{name}.json").exists()]
    running: list[tuple[str, subprocess.Popen[bytes]]] = []
    begin, n = time.monotonic(), len(todo)
    while todo or running:
        while todo and len(running) < at_once:
            name, job = todo.pop(0)
            running.append((name, subprocess.Popen(_command(name, job), env=os.environ | {"OMP_NUM_THREADS": "1"})))
        time.sleep(0.2)
        for name, process in list(running):
            if process.poll() is not None:
                running.remove((name, process))
                if process.returncode:
                    for _, other in running:
                        other.terminate()
                    sys.exit(f"{name} failed; mend it and start again, what is finished is kept")
                done = n - len(todo) - len(running)
                print(f"{time.monotonic() - begin:6.0f} s  {done}/{n}  {name}", flush=True)


def _command(name: str, job: dict[str, Any]) -> list[str]:
    path, result = FOLDER / f"{name}.job", FOLDER / f"{name}.json"
    path.write_text(json.dumps(job))
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"] if "settings" in job else []
    return [sys.executable, *launcher, "-m", "benchmarks.training.jobs", str(path), str(result)]


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
