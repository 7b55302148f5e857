"""Run what is missing of the comparison and write its page: `python -m benchmarks.inherited [SEEDS]`.

3 seeds by default; hours on 2 cores. Each training's result is stored in docs/results/inherited/, so an interrupted
comparison resumes, and a new strategy costs its supernets only. Remove the files to measure anew.
"""

import sys
from collections.abc import Iterator
from itertools import product

from benchmarks.inherited.page import write_inherited_page
from benchmarks.inherited.results import (
    COSTS,
    GRADIENTS,
    alone_key,
    alone_path,
    cost_key,
    finetuned_key,
    finetuned_path,
    supernet_key,
    supernets_path,
)
from benchmarks.inherited.strategies import RECIPES, SANDWICH, TRAININGS
from benchmarks.inherited.tasks import FINETUNE_EPOCHS, FINETUNED_ARCHS, N_RANDOM, N_SPREAD, TASKS
from benchmarks.jobs import Job, run_missing

MODULE = "benchmarks.inherited.jobs"


def main(n_seeds: int) -> None:
    """Train networks alone and supernets, seed after seed; write the page in any case."""
    try:
        run_missing(
            [cost(task, one) for one, of_task in TRAININGS.items() for task in of_task if one != SANDWICH], at_once=1
        )
        gradients = [Job(GRADIENTS, task, MODULE, {"kind": "gradients", "task": task, "seed": 0}) for task in TASKS]
        run_missing(
            [job for seed in range(n_seeds) for task in TASKS for job in jobs(task, seed)] + gradients, at_once=2
        )
    finally:
        write_inherited_page(range(n_seeds))


def cost(task: str, training: str) -> Job:
    """Return the job that measures what a training costs, with nothing else running."""
    settings = {"kind": "cost", "task": task, "training": training}
    return Job(COSTS, cost_key(task, training), MODULE, settings)


def jobs(task: str, seed: int) -> Iterator[Job]:
    """Yield the supernets of a task, then its networks trained alone, then the subnets that are finetuned."""
    for name in (one for one, of_task in TRAININGS.items() if task in of_task):
        settings = {"kind": "supernet", "task": task, "training": name, "seed": seed}
        yield Job(supernets_path(task), supernet_key(name, seed), MODULE, settings)
    for arch in range(N_SPREAD + N_RANDOM):
        settings = {"kind": "alone", "task": task, "arch": arch, "seed": seed}
        yield Job(alone_path(task), alone_key(arch, seed), MODULE, settings)
    for arch, epochs in product(FINETUNED_ARCHS, FINETUNE_EPOCHS):
        settings = {"kind": "finetuned", "task": task, "arch": arch, "epochs": epochs, "seed": seed}
        yield Job(finetuned_path(task), finetuned_key(RECIPES[task], arch, epochs, seed), MODULE, settings)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
