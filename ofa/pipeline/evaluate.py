"""Accuracy, loss and costs of any subnets of a run, each with BatchNorm statistics of its own."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ofa.core.errors import DataError, SpaceError, nearest
from ofa.cost.counted import macs_m, params_m
from ofa.evaluate.metrics import Metrics
from ofa.evaluate.subnets import evaluate_subnets
from ofa.pipeline.run import Run
from ofa.pipeline.stage import Progress
from ofa.space.arch import Arch

SPLITS = ("train", "validation", "test")


def evaluate(
    run: Run,
    archs: Sequence[Arch],
    split: str = "validation",
    *,
    max_images: int | None = None,
    calibration_images: int | None = None,
    progress: Progress = lambda done, total, message: None,
) -> dict[str, Any]:
    """Evaluate subnets of a trained run on `train` (without augmentation), `validation` or `test`.

    At most `max_images` images of the split are used, spread evenly, and for BatchNorm `calibration_images` training
    images, by default the recipe's `sample.calibration_images`.

    Returns:
        `run`, `split`, `images` (their number), and `archs`: for each of `archs`, in their order, `arch`, its `Metrics`
        and `macs_m` and `params_m`, both in millions.

    Raises:
        DataError: no such split.
        RunError: the training is not finished, or was made with another recipe.
        SpaceError: there are no archs.
    """
    if split not in SPLITS:
        raise DataError(f"unknown split {split!r}; {nearest(split, SPLITS)}")
    run.require("train", "evaluate")
    if not archs:
        raise SpaceError("the list of archs is empty; give at least one")
    images = getattr(run.data, split)
    metrics: dict[Arch, Metrics] = {}
    for arch, result in evaluate_subnets(
        run.supernet(),
        archs,
        run.data,
        images,
        calibration_images=calibration_images or run.recipe.sample.calibration_images,
        max_images=max_images,
    ):
        metrics[arch] = result
        progress(len(metrics), len(set(archs)), f"accuracy {result.top1_percent:.1f}%")
    rows = run.family.space.rows(archs)
    costs = {"macs_m": macs_m(run.family)(rows), "params_m": params_m(run.family)(rows)}
    entries = [
        {"arch": dict(arch)}
        | {name: value for name, value in asdict(metrics[arch]).items() if value is not None}
        | {name: float(cost[i]) for name, cost in costs.items()}
        for i, arch in enumerate(archs)
    ]
    n_images = len(images) if max_images is None else min(max_images, len(images))
    return {"run": str(run.folder), "split": split, "images": n_images, "archs": entries}
