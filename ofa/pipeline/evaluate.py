"""Accuracy and loss of any subnets of a run's trained supernet, each with BatchNorm statistics of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ofa.core.errors import CheckpointError, DataError, SpaceError
from ofa.core.tensors import read_tensors
from ofa.cost.counted import macs_m, params_m
from ofa.data.dataset import Images
from ofa.evaluate.metrics import Metrics
from ofa.evaluate.subnets import evaluate_subnets
from ofa.pipeline.run import Progress, Run
from ofa.space.arch import Arch
from ofa.supernet.supernet import Supernet

SPLITS = ("train", "validation", "test")


def load_supernet(run: Run) -> Supernet:
    """The trained supernet of a run.

    Raises:
        CheckpointError: its weights are truncated or of another family.
    """
    supernet = Supernet(run.family, seed=run.recipe.seed)
    path = run.path("supernet.safetensors")
    try:
        supernet.network.load_state_dict(read_tensors(path)[0])
    except RuntimeError as error:
        raise CheckpointError(f"{path} holds another network: {error}; run `ofa train` again") from error
    return supernet


def evaluate(
    run: Run,
    archs: Sequence[Arch],
    split: str = "validation",
    limit: int | None = None,
    calibration_images: int | None = None,
    progress: Progress = lambda done, total, message: None,
) -> dict[str, Any]:
    """Scores and counted costs of subnets of a trained run.

    Args:
        run: whose training is finished.
        archs: of its family.
        split: `train` (without augmentation), `validation` or `test`.
        limit: only so many images of the split, spread evenly.
        calibration_images: training images for BatchNorm; by default the recipe's `sample.calibration_images`.
        progress: told of each subnet.

    Returns:
        `run`, `split`, `images` (how many), and `archs`: for each of `archs`, in their order, `arch`, the `Scores`
        that there are, `macs_m` and `params_m`, both in millions.

    Raises:
        DataError: no such split.
        RunError: the training is not finished, or was made with another recipe.
        SpaceError: there are no archs.
    """
    if split not in SPLITS:
        raise DataError(f"unknown split {split!r}; choose from {', '.join(SPLITS)}")
    run.require("train", "evaluate")
    if not archs:
        raise SpaceError("the list of archs is empty; give at least one")
    images: Images = getattr(run.data, split)
    found: dict[Arch, Metrics] = {}
    calibration_images = calibration_images or run.recipe.sample.calibration_images
    for arch, judged in evaluate_subnets(load_supernet(run), archs, run.data, images, calibration_images, limit):
        found[arch] = judged
        progress(len(found), len(set(archs)), f"accuracy {judged.top1_percent:.1f}%")
    rows = run.family.space.rows(archs)
    costs = {"macs_m": macs_m(run.family)(rows), "params_m": params_m(run.family)(rows)}
    entries = [
        {"arch": dict(arch)}
        | {name: value for name, value in asdict(found[arch]).items() if value is not None}
        | {name: float(cost[i]) for name, cost in costs.items()}
        for i, arch in enumerate(archs)
    ]
    n_images = len(images) if limit is None else min(limit, len(images))
    return {"run": str(run.folder), "split": split, "images": n_images, "archs": entries}
