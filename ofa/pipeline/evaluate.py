"""Accuracy and loss of any subnets of a run's trained supernet, each with BatchNorm statistics of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import torch

from ofa import distributed
from ofa.calibrate import Scores, calibrate, scores
from ofa.cost import macs_m, params_m
from ofa.data import Images, eval_batches
from ofa.errors import CheckpointError, DataError, RunError, SpaceError
from ofa.pipeline.run import Progress, Run, stages
from ofa.space import Arch
from ofa.supernet import Supernet
from ofa.tensors import read_tensors

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


def subnet_scores(
    run: Run,
    supernet: Supernet,
    archs: Sequence[Arch],
    images: Images,
    limit: int | None = None,
    calibration_images: int | None = None,
) -> Iterator[tuple[Arch, Scores]]:
    """Scores of subnets, whose BatchNorm statistics are re-estimated on training images, whatever they are judged on.

    Goes from the lowest resolution to the highest, so that images are prepared once for each; archs of one
    resolution keep their order. An arch that is there several times comes once.

    Args:
        run: whose data.
        supernet: whose subnets.
        archs: of its family.
        images: the split to judge on.
        limit: only so many of these images, spread evenly.
        calibration_images: how many training images; by default the recipe's `sample.calibration_images`.
    """
    calibration_images = calibration_images or run.recipe.sample.calibration_images
    for resolution in sorted({int(arch["resolution"]) for arch in archs}):
        training = eval_batches(run.data, run.data.train, resolution, limit=calibration_images)
        judged = eval_batches(run.data, images, resolution, limit=limit)
        for arch in dict.fromkeys(archs):
            if arch["resolution"] == resolution:
                network = supernet.extract(arch).to(distributed.device()).to(memory_format=torch.channels_last)
                calibrate(network, training)
                yield arch, scores(network, judged)


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
    train = stages()["train"]
    run.check_unchanged(train)
    if not run.finished(train):
        raise RunError(f"'evaluate' needs the 'train' stage of {run.folder}; run `ofa train` first")
    if not archs:
        raise SpaceError("the list of archs is empty; give at least one")
    images: Images = getattr(run.data, split)
    found: dict[Arch, Scores] = {}
    for arch, judged in subnet_scores(run, load_supernet(run), archs, images, limit, calibration_images):
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
