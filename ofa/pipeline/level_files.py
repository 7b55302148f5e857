"""Subnets as the files that a target deploys: written in a precision, and scored as they are."""

import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ofa.data.loaders import Batches, eval_batches
from ofa.devices.format import Format, Logits
from ofa.evaluate.calibrate import calibrate
from ofa.evaluate.metrics import Metrics, Tally
from ofa.evaluate.subnets import evaluate_subnets
from ofa.pipeline.accuracy_store import Measure, Sample
from ofa.pipeline.run import Run
from ofa.space.arch import Arch, Value
from ofa.supernet.supernet import Supernet

_RANGE_IMAGES = 256
"""Training images from which the ranges of activations are taken."""


def extract(run: Run, supernet: Supernet, arch: Mapping[str, Value]) -> nn.Module:
    """Return a subnet with its own weights, BatchNorm re-estimated, in the memory layout that exporters expect."""
    network = supernet.extract(arch)
    calibrate(network, run.calibration_batches(arch))
    return network


def range_images(run: Run, arch: Mapping[str, Value]) -> NDArray[np.float32]:
    """Return preprocessed training images `[n, *input_shape]` for the ranges of an arch's activations."""
    batches = eval_batches(run.data, run.data.train, int(arch["resolution"]), limit=_RANGE_IMAGES)
    return torch.cat([images for images, _ in batches]).numpy()


def score_file(model_format: Format, path: Path, batches: Batches) -> tuple[Metrics, Logits]:
    """Return how well a file classifies batches of images, and the loaded file."""
    model = model_format.load(path)
    tally = Tally()
    for images, labels in batches:
        tally.add(torch.from_numpy(model(images.contiguous().numpy())), labels)
    return tally.metrics, model


def accuracy_measure(run: Run, model_format: Format | None = None) -> Measure:
    """Return the function that measures validation accuracies: in float32 by PyTorch, otherwise by files of a format.

    BatchNorm statistics are re-estimated on training images for each subnet.
    """
    supernets: list[Supernet] = []  # loaded when the first accuracy is missing

    def measure(precision: str, archs: list[Arch]) -> Iterable[tuple[Arch, Sample]]:
        supernets.extend([] if supernets else [run.supernet()])
        if precision != "float32":
            assert model_format is not None
            yield from _by_files(run, supernets[0], model_format, precision, archs)
            return
        config = run.recipe.sample
        limits = {"calibration_images": config.calibration_images, "max_images": config.images}
        for arch, metrics in evaluate_subnets(supernets[0], archs, run.data, run.data.validation, **limits):
            yield arch, Sample(metrics.top1_percent, metrics.loss)

    return measure


def _by_files(
    run: Run, supernet: Supernet, model_format: Format, precision: str, archs: list[Arch]
) -> Iterator[tuple[Arch, Sample]]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"model{model_format.suffix}"
        for arch in archs:
            network, shape = extract(run, supernet, arch), run.family.input_shape(arch)
            images = range_images(run, arch)
            model_format.write(network, shape, path, precision=precision, images=images, metadata={})
            metrics, _ = score_file(model_format, path, run.validation_batches(arch))
            yield arch, Sample(metrics.top1_percent, metrics.loss)
