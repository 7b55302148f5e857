"""What model files cost as they are deployed: `ofa benchmark`, one row for each file on a device."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from export.errors import check_number
from export.model_files import FILE_KINDS, load_model
from export.session import image_shape, session
from ofa.core.errors import DeviceError, ExportError
from ofa.devices.device import Device, HostLost, Model, Runner
from ofa.devices.registry import create_device, device_formats
from ofa.pipeline.target import Target
from ofa.report.markup import plain_page, table

_BURST_MS = 10.0
_MAX_BURST = 100
_CONVERTED = {kind.suffix: (name, kind.device) for name, kind in FILE_KINDS.items()}
FILES = {".onnx": ("onnx", "ort-cpu"), ".ort": ("ort", "ort-cpu")} | _CONVERTED
"""The format of a file by its suffix, and the device that runs it by default."""


@dataclass(frozen=True)
class Deployable:
    """A model file, the device that runs it, and what is known of it.

    Attributes:
        name: of the file, or `TARGET/LEVEL`.
        path: of the file.
        device: that runs the file.
        input_shape: of one image.
        format: of the file.
        precision: of its numbers; None if it is not known.
        top1_percent: accuracy of the file on test images; None if it is not known.
        max_abs_diff: largest difference of a logit from PyTorch; None if it is not known.
    """

    name: str
    path: Path
    device: Device
    input_shape: tuple[int, ...]
    format: str
    precision: str | None = None
    top1_percent: float | None = None
    max_abs_diff: float | None = None


@dataclass(frozen=True)
class Measurement:
    """A row: `Deployable` says what some values mean; latencies are of one run of the whole batch, loading of once."""

    name: str
    format: str
    precision: str | None
    device: str
    runtime: str
    threads: int
    batch: int
    size_mib: float
    load_ms: float
    latency_ms: float
    latency_p95_ms: float
    images_per_second: float
    runs: int
    top1_percent: float | None
    max_abs_diff: float | None


def of_file(path: Path, device_name: str | None, options: Mapping[str, Any]) -> Deployable:
    """Return a file of one of `FILES`, by default on the runtime of its format on this computer.

    Raises:
        ExportError: there is no such file, or it is of another kind.
        DeviceError: the device is unknown, cannot run here or refuses an option; or the file cannot be read.
    """
    if path.suffix not in FILES or not path.is_file():
        raise ExportError(f"{path} is not a file *{', *'.join(FILES)}; give such a file, or the directory of a run")
    file_format, default = FILES[path.suffix]
    name, precision = device_name or default, None
    if not {file_format, file_format.replace("ort", "onnx")} & set(runs := device_formats(name)):
        raise DeviceError(f"{name} does not run {path.name}, but files of {' and '.join(runs)}; choose another device")
    device = create_device(name, **options)
    if file_format in FILE_KINDS:
        shape = load_model(file_format, path).input_shape
    else:
        loaded = session(path)
        shape = image_shape(loaded)
        precision = loaded.get_modelmeta().custom_metadata_map.get("ofa.precision", "").strip('"') or None
    return Deployable(path.name, path, device, shape, file_format, precision)


def of_target(target: Target) -> Iterator[Deployable]:
    """Yield the levels of a target, on its device.

    Raises:
        RunError: they were not exported yet.
        DeviceError: the device cannot run here.
    """
    for i, level in enumerate(target.levels):
        yield Deployable(
            f"{target.name}/{i}",
            target.path(level.file),
            target.device(level.precision),
            target.run.family.input_shape(level.arch),
            level.format,
            level.precision,
            level.top1_percent,
            level.max_abs_diff,
        )


def benchmark(
    files: Sequence[Deployable],
    rng: np.random.Generator,
    *,
    rounds: int = 30,
    on_progress: Callable[[int, int, str], None] = lambda done, total, message: None,
) -> list[Measurement]:
    """Load each file, then run all of them in rounds, each time in another order, so that none has a better moment.

    Nothing is corrected for drift, unlike in a latency table: these are the times that a user would see.

    Raises:
        DeviceError: a file does not run on its device, or a host of it no longer answers.
    """
    check_number("rounds", rounds, 1, 10_000, whole=True)
    runners, load_ms, bursts = list[Runner](), list[float](), list[int]()
    try:
        for i, file in enumerate(files):
            start = time.perf_counter()
            runners.append(_load(file))
            load_ms.append((time.perf_counter() - start) * 1e3)
            first_ms = min(runners[i](3))
            bursts.append(int(np.clip(_BURST_MS / max(first_ms, 1e-3), 1, _MAX_BURST)))
        times_ms: list[list[float]] = [[] for _ in files]
        for done in range(rounds):
            for i in rng.permutation(len(files)).tolist():
                times_ms[i] += runners[i](bursts[i])
            on_progress(done + 1, rounds, f"{len(files)} files")
    except HostLost as error:
        raise DeviceError(f"a host no longer answers ({error}); start again once it does") from error
    return [_measurement(*of_one) for of_one in zip(files, load_ms, times_ms, strict=True)]


def _load(file: Deployable) -> Runner:
    def refuse() -> nn.Module:
        raise DeviceError(f"{file.device.name} runs networks of PyTorch and no files; choose another device")

    return file.device.hosts[0].load(Model(refuse, file.input_shape, file.path))


def _measurement(file: Deployable, load_ms: float, times_ms: list[float]) -> Measurement:
    about, median_ms = file.device.description, float(np.median(times_ms))
    batch = int(about.get("batch", 1))
    return Measurement(
        name=file.name,
        format=file.format,
        precision=file.precision,
        device=file.device.name,
        runtime=f"{about.get('runtime', '?')} {about.get('runtime_version', '')}".strip(),
        threads=int(about.get("threads", 1)),
        batch=batch,
        size_mib=file.path.stat().st_size / 2**20,
        load_ms=load_ms,
        latency_ms=median_ms,
        latency_p95_ms=float(np.percentile(times_ms, 95)),
        images_per_second=1e3 * batch / median_ms,
        runs=len(times_ms),
        top1_percent=file.top1_percent,
        max_abs_diff=file.max_abs_diff,
    )


def cells(rows: Iterable[Measurement]) -> list[dict[str, str]]:
    """Return the rows as texts by column, in few letters, as terminals are narrow; what is not known is empty."""

    def text(value: float | None, form: str) -> str:
        return "" if value is None else f"{value:{form}}"

    return [
        {
            "level or file": row.name,
            "format": f"{row.format} {row.precision or ''}".strip(),
            "device": ", ".join(
                [row.device, *[f"{row.threads} threads"] * (row.threads > 1), *[f"batch {row.batch}"] * (row.batch > 1)]
            ),
            "MiB": f"{row.size_mib:.2f}",
            "load ms": f"{row.load_ms:.1f}",
            "ms": f"{row.latency_ms:.3f}",
            "p95 ms": f"{row.latency_p95_ms:.3f}",
            "top-1 %": text(row.top1_percent, ".2f"),
            "max diff": text(row.max_abs_diff, ".1e"),
        }
        for row in rows
    ]


def page(title: str, rows: Sequence[Measurement]) -> str:
    """Return the rows as an HTML page."""
    note = (
        "<p>Each row is one model file as it is deployed: its size, the time to load it once, median and 95th "
        "percentile of the latency of a run, its accuracy on the test images and the largest difference of a logit "
        "from PyTorch, where they are known. All files ran in turn, in rounds.</p>"
    )
    runtimes = ", ".join(dict.fromkeys(row.runtime for row in rows))
    return plain_page(title, note, table(cells(rows)), f"<p>{runtimes}.</p>")
