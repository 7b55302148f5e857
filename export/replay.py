"""A discharging battery in fast motion: what a bundle's runtime does from full to empty, and on mains power."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.policy import Battery, BatteryPolicy
from export.preprocess import Picture
from export.runtime import Runtime
from ofa.core.errors import DataError


@dataclass(frozen=True)
class ReplayStep:
    """What happened at one charge of the battery.

    Attributes:
        battery_percent: the simulated charge.
        charging: on mains power.
        level: which level served.
        top1_percent: of that level, as the bundle says.
        correct: how many of the images were classified right; None without labels.
        n_images: how many images were served.
        latency_ms: median over the images, each served alone; the model only.
    """

    battery_percent: float
    charging: bool
    level: int
    top1_percent: float
    correct: int | None
    n_images: int
    latency_ms: float


def replay(
    bundle_folder: Path,
    images: NDArray[np.uint8] | Sequence[Picture],
    labels: Sequence[int] | None = None,
    steps: int = 21,
    charging_steps: int = 5,
    images_per_step: int = 16,
    policy: BatteryPolicy | None = None,
    threads: int = 1,
) -> list[ReplayStep]:
    """Runs a bundle over a battery that falls from 100 to 0 percent and is then charged back to 100. Never sleeps.

    Args:
        bundle_folder: see `export.bundle`.
        images: real images, taken in turns; see `export.preprocess.Preprocess`.
        labels: the class index of each image.
        steps: of the discharge, at least 2.
        charging_steps: of the charge that follows.
        images_per_step: how many images are served at each step.
        policy: see `export.runtime.Runtime`.
        threads: of one run.

    Raises:
        BundleError: the bundle is corrupt.
        DataError: no images, another number of labels, or too few steps.
    """
    if not len(images) or (labels is not None and len(labels) != len(images)):
        raise DataError(f"{len(images)} images and {0 if labels is None else len(labels)} labels; give one per image")
    if steps < 2 or charging_steps < 0 or images_per_step < 1:
        raise DataError(
            f"steps = {steps}, charging_steps = {charging_steps}, images_per_step = {images_per_step}; "
            "give at least 2, 0 and 1"
        )
    falling = [Battery(float(p), charging=False) for p in np.linspace(100, 0, steps)]
    rising = [Battery(float(p), charging=True) for p in np.linspace(0, 100, charging_steps + 1)[1:]]
    readings = falling + rising
    done: list[ReplayStep] = []
    with Runtime(bundle_folder, policy, lambda: readings[len(done)], threads, poll_seconds=float("inf")) as runtime:
        for reading in readings:
            level = runtime.update()
            first = len(done) * images_per_step
            chosen = [(first + i) % len(images) for i in range(images_per_step)]
            answers = [runtime.predict([images[i]]) for i in chosen]
            tops = [int(answer.probabilities.argmax()) for answer in answers]
            done.append(
                ReplayStep(
                    reading.percent,
                    reading.charging,
                    level,
                    runtime.bundle.levels[level].top1_percent,
                    None if labels is None else sum(top == labels[i] for top, i in zip(tops, chosen, strict=True)),
                    len(chosen),
                    float(np.median([answer.latency_ms for answer in answers])),
                )
            )
    return done
