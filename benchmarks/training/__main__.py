"""Run what is missing of the comparison and write its page: `python -m benchmarks.training [SEEDS]`.

3 seeds by default, each under 90 minutes on 2 cores. Each training's result is stored in docs/results/training/, so an
interrupted comparison resumes. Remove the files to measure anew.
"""

import sys
from collections.abc import Iterator

from benchmarks.jobs import Job, read, run_missing
from benchmarks.training.page import write_training_page
from benchmarks.training.results import COSTS, alone_key, phase_key, seed_path, supernet_key
from benchmarks.training.strategies import COMPARED_WITH_ALONE, LARGE, TRAININGS, epochs_for
from benchmarks.training.tasks import TASKS, spread_archs

MODULE = "benchmarks.training.jobs"


def main(n_seeds: int) -> None:
    """Compare inherited weights with training alone for all seeds, then strategies; write the page in any case."""
    seeds = range(n_seeds)
    try:
        run_missing([job for seed in seeds for job in inherited_and_alone(seed)], at_once=2)
        run_missing(
            [Job(COSTS, "cnn", MODULE, {"kind": "costs", "task": "cnn"})], at_once=1
        )  # timed, so nothing else runs
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
            yield Job(seed_path(seed), alone_key(name, i), MODULE, settings)
    for name, task in TASKS.items():
        settings = {"kind": "supernet", "task": name, "strategy": LARGE, "seed": seed, "epochs": [task.epochs]}
        yield Job(seed_path(seed), supernet_key(name, COMPARED_WITH_ALONE), MODULE, settings)


def strategies(seed: int) -> Iterator[Job]:
    """Yield the trainings of the comparison of strategies, with the epochs that their budgets allow."""
    epoch_seconds = read(COSTS)["cnn"]
    for name, training in TRAININGS.items():
        budget = training.cost_share * TASKS["cnn"].epochs * epoch_seconds[phase_key(LARGE, 0)]
        epochs = epochs_for(training.strategy, budget, epoch_seconds)
        settings = {"kind": "supernet", "task": "cnn", "strategy": training.strategy, "seed": seed, "epochs": epochs}
        settings["different_archs"] = training.different_archs
        yield Job(seed_path(seed), supernet_key("cnn", name), MODULE, settings, training.processes)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3)
