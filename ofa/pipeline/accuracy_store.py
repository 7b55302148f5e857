"""Validation accuracies and losses of subnets, kept in files of the run so that an interrupted stage resumes.

The stage `sample` writes `samples.json`, the search of a target `accuracies/TARGET.json`. All targets read all of them.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ofa.core import distributed
from ofa.core.errors import RunError
from ofa.core.files import write_json
from ofa.pipeline.run import Run
from ofa.pipeline.stage import all_stages
from ofa.predict.denoise import denoised_percent
from ofa.space.arch import Arch

_ARCHS_PER_WRITE = 24
"""Archs that a process evaluates between two writes of the file."""


class Sample(NamedTuple):
    """What a subnet scores on validation images: top-1 accuracy in percent and mean cross-entropy in nats."""

    top1_percent: float
    loss: float


Samples = dict[Arch, Sample]
Measure = Callable[[str, list[Arch]], Iterable[tuple[Arch, Sample]]]
"""Yields the samples of archs in a precision, as they are measured."""


class AccuracyStore:
    """The samples that a stage measures, by precision, in a file of its run; of use with the same supernet and images.

    Samples in `known`, by precision, are not measured again and are not written. What a network loses in a precision
    other than float32 depends on the `file_format` that its files have, so those of another format are not used.
    """

    def __init__(
        self,
        run: Run,
        name: str,
        measure: Measure,
        known: Mapping[str, Mapping[Arch, Sample]] | None = None,
        *,
        file_format: str | None = None,
    ) -> None:
        self._run, self._name, self._measure, self._known = run, name, measure, known or {}
        self._file_format = file_format
        self.samples: dict[str, Samples] = _read(run, name, file_format) if run.path(name).exists() else {}

    @property
    def n_samples(self) -> int:
        """The number of samples in all precisions."""
        return sum(map(len, self.samples.values()))

    def measure(self, precision: str, archs: list[Arch], on_progress: Callable[[int, str], None]) -> Samples:
        """Return the samples of archs in a precision; those that are missing are measured, shared among processes.

        `on_progress` is called with the number of samples in the store and a message.
        """
        have, known = self.samples.setdefault(precision, {}), self._known.get(precision, {})
        missing = [arch for arch in dict.fromkeys(archs) if arch not in have and arch not in known]
        missing.sort(key=lambda arch: arch["resolution"])

        def measure_part(part: list[Arch]) -> Samples:
            samples: Samples = {}
            for arch, sample in self._measure(precision, part):
                samples[arch] = sample
                done = self.n_samples + len(samples) * distributed.world_size()
                on_progress(done, f"accuracy {sample.top1_percent:.1f}%")
            return samples

        step = _ARCHS_PER_WRITE * distributed.world_size()
        for part in (missing[start : start + step] for start in range(0, len(missing), step)):
            scores = distributed.share_out(measure_part, part, len(Sample._fields))
            have |= {arch: Sample(*values) for arch, values in scores.items()}
            if distributed.rank() == 0:
                self._write()
        return {arch: have[arch] if arch in have else known[arch] for arch in archs}

    def _write(self) -> None:
        entries = [
            {"arch": dict(arch), "precision": precision, "file_format": self._file_format} | sample._asdict()
            for precision, samples in self.samples.items()
            for arch, sample in samples.items()
        ]
        path = self._run.path(self._name)
        path.parent.mkdir(exist_ok=True)
        write_json(path, {"fingerprint": _fingerprint(self._run), "samples": entries})


def read_samples(run: Run) -> Samples:
    """Return the archs that stage `sample` measured, with their scores; RunError if the file is missing or broken."""
    return _parse(run, run.read_json("samples.json"), None).get("float32", {})


def read_accuracies(run: Run, *, file_format: str | None = None, without: str | None = None) -> dict[str, Samples]:
    """Return the measured accuracies of a run by precision: the samples and what the searches of targets measured.

    With a `file_format`, those of files are of that format only. Those of the target `without` are left out, so that
    its search, made again, finds the same.
    """
    accuracies: dict[str, Samples] = {"float32": read_samples(run)}
    for path in sorted(run.path("accuracies").glob("*.json")):
        if path.stem != without:
            for precision, samples in _read(run, f"accuracies/{path.name}", file_format).items():
                accuracies[precision] = accuracies.get(precision, {}) | samples
    return accuracies


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


def _fingerprint(run: Run) -> str:
    return run.fingerprint(all_stages()["sample"])


def _read(run: Run, name: str, file_format: str | None) -> dict[str, Samples]:
    """Return the samples of a file; none if they are of another supernet or other images."""
    content = run.read_json(name)
    is_current = isinstance(content, dict) and content.get("fingerprint") == _fingerprint(run)
    return _parse(run, content, file_format) if is_current else {}


def _parse(run: Run, content: Any, file_format: str | None) -> dict[str, Samples]:
    samples: dict[str, Samples] = {}
    try:
        for entry in content["samples"]:
            precision = entry.get("precision", "float32")
            if precision != "float32" and file_format not in (None, entry.get("file_format")):
                continue
            of_precision = samples.setdefault(precision, {})
            of_precision[run.family.space.arch(entry["arch"])] = Sample(entry["top1_percent"], entry["loss"])
    except (KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{run.folder} has malformed accuracies ({error!r}); remove their file") from error
    return samples
