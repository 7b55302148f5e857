"""A discharging battery in fast motion: what a bundle's runtime does from full to empty, and on mains power."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from export.errors import check_number
from export.policies.battery import Battery
from export.policies.policy import Policy
from export.preprocess import Picture
from export.runtime import Runtime
from ofa.core.errors import DataError
from ofa.pipeline.levels import ReplayStep


def replay(
    bundle_folder: Path,
    images: NDArray[np.uint8] | Sequence[Picture],
    labels: Sequence[int] | None = None,
    *,
    steps: int = 21,
    charging_steps: int = 5,
    images_per_step: int = 16,
    policy: Policy | None = None,
    threads: int = 1,
) -> list[ReplayStep]:
    """Serve images from a bundle while a simulated battery falls from 100 to 0 percent and is charged again.

    There are `steps` charges from 100 to 0, at least 2, and `charging_steps` from 0 to 100 on mains power. At each,
    `images_per_step` pictures are served in turn; `labels` are the indices of their classes. `export.runtime.Runtime`
    explains the rest.

    Raises:
        BundleError: the bundle is corrupt.
        DataError: no images, another number of labels than images, or a number out of range.
    """
    if not len(images) or (labels is not None and len(labels) != len(images)):
        raise DataError(f"{len(images)} images and {0 if labels is None else len(labels)} labels; give one per image")
    for name, value, low in (("steps", steps, 2), ("charging_steps", charging_steps, 0)):
        check_number(name, value, low, 1000, whole=True, kind=DataError)
    check_number("images_per_step", images_per_step, 1, 1_000_000, whole=True, kind=DataError)
    readings = [Battery(float(percent), charging=False) for percent in np.linspace(100, 0, steps)]
    readings += [Battery(float(percent), charging=True) for percent in np.linspace(0, 100, charging_steps + 1)[1:]]
    done: list[ReplayStep] = []
    runtime = Runtime(
        bundle_folder,
        policy=policy,
        battery=lambda: readings[len(done)],
        threads=threads,
        poll_seconds=float("inf"),
    )
    with runtime:
        for reading in readings:
            runtime.update()
            served = [(len(done) * images_per_step + i) % len(images) for i in range(images_per_step)]
            step_labels = None if labels is None else [labels[i] for i in served]
            done.append(_serve(runtime, reading, [images[i] for i in served], step_labels))
    return done


def _serve(runtime: Runtime, reading: Battery, images: Sequence[Picture], labels: Sequence[int] | None) -> ReplayStep:
    """Serve images one at a time at the runtime's level."""
    predictions = [runtime.predict([image]) for image in images]
    classes = [int(prediction.probabilities.argmax()) for prediction in predictions]
    return ReplayStep(
        battery_percent=reading.percent,
        charging=reading.charging,
        level=runtime.level,
        top1_percent=runtime.levels[runtime.level].top1_percent,
        correct=None if labels is None else sum(a == b for a, b in zip(classes, labels, strict=True)),
        n_images=len(images),
        latency_ms=float(np.median([prediction.latency_ms for prediction in predictions])),
    )
