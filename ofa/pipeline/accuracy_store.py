"""Validation accuracies and losses of subnets, kept in a file of the run so that an interrupted stage resumes."""

from collections.abc import Callable, Iterable
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ofa.core import distributed
from ofa.core.files import write_json
from ofa.evaluate.subnets import evaluate_subnets
from ofa.pipeline.run import Run
from ofa.pipeline.stage import Stage
from ofa.predict.denoise import denoised_percent
from ofa.space.arch import Arch
from ofa.supernet.supernet import Supernet

_ARCHS_PER_WRITE = 24
"""Archs that a process evaluates between two writes of the file."""


class Sample(NamedTuple):
    """What a subnet scores on validation images: top-1 accuracy in percent and mean cross-entropy in nats."""

    top1_percent: float
    loss: float


class AccuracyStore:
    """The samples that a stage measures, in a file of its run that is of use only to it with the same settings."""

    def __init__(self, run: Run, stage: Stage, name: str) -> None:
        self._run, self._name, self._fingerprint = run, name, run.fingerprint(stage)
        self.samples: dict[Arch, Sample] = {}
        if run.path(name).exists():
            content = run.read_json(name)
            if content["fingerprint"] == self._fingerprint:
                self.samples = _parse(run, content["samples"])

    def measure(self, archs: list[Arch], on_progress: Callable[[int, str], None]) -> dict[Arch, Sample]:
        """Return the samples of archs; those that are missing are measured, shared among all processes.

        `on_progress` is called with the number of samples in the store and a message.
        """
        missing = sorted((arch for arch in archs if arch not in self.samples), key=lambda arch: arch["resolution"])
        step = _ARCHS_PER_WRITE * distributed.world_size()
        for part in (missing[start : start + step] for start in range(0, len(missing), step)):
            scores = distributed.share_out(partial(self._measure, on_progress), part, len(Sample._fields))
            self.samples |= {arch: Sample(*values) for arch, values in scores.items()}
            if distributed.rank() == 0:
                samples = [{"arch": dict(arch)} | sample._asdict() for arch, sample in self.samples.items()]
                write_json(self._run.path(self._name), {"fingerprint": self._fingerprint, "samples": samples})
        return {arch: self.samples[arch] for arch in archs}

    @cached_property
    def _supernet(self) -> Supernet:
        return self._run.supernet()

    def _measure(self, on_progress: Callable[[int, str], None], archs: list[Arch]) -> dict[Arch, Sample]:
        data, config, samples = self._run.data, self._run.recipe.sample, dict[Arch, Sample]()
        limits = {"calibration_images": config.calibration_images, "max_images": config.images}
        for arch, metrics in evaluate_subnets(self._supernet, archs, data, data.validation, **limits):
            samples[arch] = Sample(metrics.top1_percent, metrics.loss)
            done = len(self.samples) + len(samples) * distributed.world_size()
            on_progress(done, f"accuracy {metrics.top1_percent:.1f}%")
        return samples


def read_samples(run: Run) -> dict[Arch, Sample]:
    """Return the archs that stage `sample` measured, with their scores; RunError if the file is missing or broken."""
    return _parse(run, run.read_json("samples.json")["samples"])


def columns(samples: Iterable[Sample]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return accuracies in percent and losses, `[n]` each."""
    top1_percent, loss = np.array(list(samples)).T
    return top1_percent, loss


def n_validation_images(run: Run) -> int:
    """Return the number of validation images that an accuracy of this run was measured on."""
    return min(run.recipe.sample.images, run.data_info.n_validation)


def denoised(run: Run, samples: Iterable[Sample]) -> NDArray[np.float64]:
    """Return accuracies in percent with less noise `[n]`; see `ofa.predict.denoise.denoised_percent`."""
    return denoised_percent(*columns(samples), n_validation_images(run))


def _parse(run: Run, entries: list[dict[str, Any]]) -> dict[Arch, Sample]:
    space = run.family.space
    return {space.arch(entry["arch"]): Sample(entry["top1_percent"], entry["loss"]) for entry in entries}
