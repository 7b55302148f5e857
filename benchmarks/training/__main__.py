"""Runs what is missing of the comparison, two trainings at once, and writes docs/results/training.md.

`python -m benchmarks.training [SEEDS]`: 3 seeds by default, each under 90 minutes on 2 cores. What was measured is kept
in `docs/results/training/`, a file for each seed, written after each training: a comparison that was stopped goes on
where it was. Remove the files to measure anew.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.training.page import write_page
from benchmarks.training.results import COSTS, of_seed, read
from benchmarks.training.tasks import (
    DEFAULT,
    HALF,
    LARGE,
    SHARE,
    STRATEGIES,
    TASKS,
    TWO_PROCESSES,
    WHOLE,
    alone_name,
    epochs_for,
    job_name,
    phase_key,
    spread_archs,
)
from ofa.core.files import write_json

AT_ONCE = 2

Job = tuple[Path, str, dict[str, Any]]
"""Where its result goes, under which name, and what `benchmarks.training.jobs` is told."""


def main(n_seeds: int) -> None:
    """First what the promise rests on for all seeds, then the strategies; the page has what is there."""
    seeds = range(n_seeds)
    try:
        run_all([job for seed in seeds for job in inherited_and_alone(seed)], AT_ONCE)
        run_all([(COSTS, "cnn", {"kind": "costs", "task": "cnn"})], at_once=1)  # alone: it is timed
        run_all([job for seed in seeds for job in strategies(seed)], AT_ONCE)
        run_all([job for seed in seeds for job in two_processes(seed)], at_once=1)
    finally:
        write_page(n_seeds)


def inherited_and_alone(seed: int) -> Iterator[Job]:
    """The supernet of each task, and networks trained alone, the largest first."""
    for name, task in TASKS.items():
        for i, arch in reversed(list(enumerate(spread_archs(task.make(), task.alone)))):
            job = {"kind": "alone", "task": name, "arch": dict(arch), "seed": seed, "epochs": task.epochs}
            yield of_seed(seed), alone_name(name, i), job
    for name, task in TASKS.items():
        yield of_seed(seed), job_name(name, LARGE, WHOLE), _training(name, LARGE, seed, [task.epochs])


def strategies(seed: int) -> Iterator[Job]:
    """Each strategy at the same cost, and two of them at half of it."""
    for strategy in STRATEGIES:
        yield _for_a_share(strategy, seed, SHARE)
    for strategy in (DEFAULT, LARGE):
        yield _for_a_share(strategy, seed, SHARE / 2, HALF)


def two_processes(seed: int) -> Iterator[Job]:
    """The larger sandwich by two processes, which draw the same archs, or each its own."""
    for said, different in TWO_PROCESSES.items():
        results, name, job = _for_a_share(LARGE, seed, SHARE, said)
        yield results, name, job | {"settings": {"different_archs": different}}


def _for_a_share(strategy: str, seed: int, share: float, said: str = "") -> Job:
    seconds = read(COSTS)["cnn"]
    budget = share * TASKS["cnn"].epochs * seconds[phase_key(LARGE, 0)]
    epochs = epochs_for(strategy, budget, seconds)
    return of_seed(seed), job_name("cnn", strategy, said), _training("cnn", strategy, seed, epochs)


def _training(task: str, strategy: str, seed: int, epochs: list[int]) -> dict[str, Any]:
    return {"kind": "supernet", "task": task, "strategy": strategy, "seed": seed, "epochs": epochs}


def run_all(wanted: list[Job], at_once: int) -> None:
    """Runs the jobs that have no result yet, each in a process of its own, and writes down what each found."""
    todo = [job for job in wanted if job[1] not in read(job[0])]
    running: dict[tuple[Path, str], tuple[subprocess.Popen[bytes], Path]] = {}
    begin, n, started = time.monotonic(), len(todo), 0
    with tempfile.TemporaryDirectory() as folder:
        try:
            while todo or running:
                while todo and len(running) < at_once:
                    results, name, job = todo.pop(0)
                    answer, started = Path(folder, f"{started}.json"), started + 1
                    command = _command(answer, job)
                    process = subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"})
                    running[results, name] = process, answer
                time.sleep(0.2)
                for results, name in [key for key, (process, _) in running.items() if process.poll() is not None]:
                    process, answer = running.pop((results, name))
                    if process.returncode:
                        sys.exit(f"{name} failed; mend it and start again, what is finished is kept")
                    results.parent.mkdir(parents=True, exist_ok=True)
                    write_json(results, read(results) | {name: json.loads(answer.read_text())})
                    done = n - len(todo) - len(running)
                    print(f"{time.monotonic() - begin:6.0f} s  {done}/{n}  {results.stem}: {name}", flush=True)
        finally:
            for process, _ in running.values():
                process.terminate()


def _command(answer: Path, job: dict[str, Any]) -> list[str]:
    asked = answer.with_suffix(".job")
    asked.write_text(json.dumps(job))
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"] if "settings" in job else []
    return [sys.executable, *launcher, "-m", "benchmarks.training.jobs", str(asked), str(answer)]


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
