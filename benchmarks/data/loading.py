"""Images per second of training batches beside timm's own loader, with the same files, transform and workers."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.data import ImageDataset, create_loader

import ofa
from benchmarks.data.pictures import SIDES, jpeg_folder
from benchmarks.page import median_range, table
from ofa.data.config import AugmentConfig, DataConfig
from ofa.data.loaders import train_batches

RESOLUTION, BATCH_SIZE, WORKERS = 224, 32, 2
ROUNDS, WARM_UP, BATCHES = 7, 4, 30
AHEAD = 4
"""Batches that workers load beyond those that are counted, as in a training that goes on."""
CASES = {"224 to 500": SIDES, "450 to 900": (450, 900), "1,000 to 2,000": (1000, 2000)}
"""Range of the files' sides in pixels."""
N_TEST_IMAGES = 1_000  # which are not read here
AUGMENT = AugmentConfig(hflip=0.5)


def measure(folder: Path) -> dict[str, Any]:
    """Return images per second of both loaders, in interleaved rounds."""
    speeds: dict[str, Any] = {}
    for name, sides in CASES.items():
        images = jpeg_folder(folder, N_TEST_IMAGES, sides)
        loaders = {"ours": _ours(images), "timm": _timm(images)}
        speeds[name] = {loader: [] for loader in loaders}
        for _ in range(ROUNDS):
            for loader, batches in loaders.items():
                speeds[name][loader].append(_images_per_s(batches))
    return speeds


def section(speeds: dict[str, Any]) -> list[str]:
    """Return the section of the page."""
    rows = []
    for name, of_loaders in speeds.items():
        ours, timms = (np.array(of_loaders[loader]) for loader in ("ours", "timm"))
        rows.append(
            " | ".join(
                [name, *(median_range(values, ".0f") for values in (ours, timms)), median_range(ours / timms, ".2f")]
            )
        )
    return [
        "## Loading of training batches",
        f"JPEG files, random crops of {RESOLUTION} pixels with horizontal flips, {WORKERS} workers, batches of "
        f"{BATCH_SIZE}, normalized; images per second and the ratio of rounds that alternate: median of {ROUNDS} "
        "(10th to 90th percentile). Files far larger than the crop are decoded at a reduced scale here, which timm's "
        "loader does not do.",
        table("sides of the files, pixels | images/s | timm's loader, images/s | ratio", rows),
    ]


def _ours(folder: Path) -> Callable[[], Iterator[Any]]:
    data = ofa.load_data(DataConfig(name="image_folder", folder=folder))
    return partial(
        train_batches,
        data,
        AUGMENT,
        resolution=lambda _: RESOLUTION,
        batch_size=BATCH_SIZE,
        seed=0,
        workers=WORKERS,
        steps=range(WARM_UP + BATCHES + AHEAD),
    )


def _timm(folder: Path) -> Callable[[], Iterator[Any]]:
    loader = create_loader(
        ImageDataset(str(folder / "train")),
        input_size=(3, RESOLUTION, RESOLUTION),
        batch_size=BATCH_SIZE,
        is_training=True,
        scale=AUGMENT.scale,
        ratio=AUGMENT.ratio,
        hflip=AUGMENT.hflip,
        color_jitter=None,  # type: ignore[arg-type]  # timm takes None
        interpolation="bilinear",
        num_workers=WORKERS,
        device=torch.device("cpu"),
        persistent_workers=False,
    )
    return lambda: iter(loader)


def _images_per_s(start: Callable[[], Iterator[Any]]) -> float:
    batches = start()
    for _ in islice(batches, WARM_UP):
        pass
    begin = time.perf_counter()
    n_images = sum(len(labels) for _, labels in islice(batches, BATCHES))
    return n_images / (time.perf_counter() - begin)
