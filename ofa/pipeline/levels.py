"""Deployed levels and the steps of a battery replay: the records that export writes and the report reads.

Standard library only, as the runtime on a device reads them too.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from ofa.core.errors import RunError
from ofa.core.files import read_json, write_json

T = TypeVar("T")


@dataclass(frozen=True)
class Level:
    """A deployed subnet: a file in one format and precision, and what was measured of that very file.

    Attributes:
        target: name of the target that it was made for.
        arch: the value of each active choice.
        file: its path, relative to the folder of the target or of the bundle.
        format: of the file, such as "onnx".
        precision: of its numbers, such as "float32" or "int8_static".
        bytes: size of the file.
        size_mib: the same in MiB.
        top1_percent: accuracy of the file on the test images.
        accuracy_drop_percent: points by which that is below the float32 network in PyTorch; negative if it is above.
        same_top1_percent: test images for which the file and PyTorch give the same class, in percent.
        max_abs_diff: largest difference of a logit between the file and PyTorch.
        validation_top1_percent: accuracy on the validation images in this precision, measured before the export.
        measured: whether `latency_ms` was measured with the file on the device; otherwise it is the predicted one.
        batch: number of images in one run.
        latency_ms: median latency of one run on the device.
        latency_spread_ms: interquartile range of the same measurements; 0 if nothing was measured.
        predicted_latency_ms: latency predicted by the latency table.
        images_per_second: images that one run after the other takes in a second.
        energy_mj: energy of one image in millijoules; None if the power of the target is not known.
        macs_m: multiply-accumulates of one image in millions.
        params_m: parameters in millions.
        peak_activation_mib: activations of one image at their peak in MiB.
    """

    target: str
    arch: Mapping[str, int | float]
    file: str
    format: str
    precision: str
    bytes: int
    size_mib: float
    top1_percent: float
    accuracy_drop_percent: float
    same_top1_percent: float
    max_abs_diff: float
    validation_top1_percent: float
    measured: bool
    batch: int
    latency_ms: float
    latency_spread_ms: float
    predicted_latency_ms: float
    images_per_second: float
    energy_mj: float | None
    macs_m: float
    params_m: float
    peak_activation_mib: float


@dataclass(frozen=True)
class ReplayStep:
    """What a bundle's runtime did at one charge of a simulated battery.

    Attributes:
        battery_percent: the charge, 0 to 100.
        charging: whether the device was on mains power.
        level: index of the level that served.
        top1_percent: test accuracy of that level.
        correct: number of images classified correctly; None without labels.
        n_images: number of images served, one at a time.
        latency_ms: median time of the model over those images, without preprocessing.
    """

    battery_percent: float
    charging: bool
    level: int
    top1_percent: float
    correct: int | None
    n_images: int
    latency_ms: float


_FILES = {Level: ("export/levels.json", "ofa export"), ReplayStep: ("replay.json", "ofa bundle")}


def write_records(folder: Path, kind: type[T], records: Sequence[T]) -> None:
    """Write the levels, the slowest first, or the replay steps of the run in `folder`."""
    write_json(folder / _FILES[kind][0], [to_json(record) for record in records])


def read_records(folder: Path, kind: type[T]) -> list[T]:
    """Read the levels or the replay steps of the run in `folder`; RunError if the file is missing or malformed."""
    name, command = _FILES[kind]
    try:
        return [from_json(kind, values) for values in read_json(folder / name)]
    except (OSError, ValueError, TypeError) as error:
        raise RunError(f"{folder / name} cannot be read ({error}); run `{command}` again") from error


def to_json(record: Any) -> dict[str, Any]:
    """Return the fields of a dataclass of plain values as a JSON object; mappings become dictionaries."""
    return {key: dict(value) if isinstance(value, Mapping) else value for key, value in asdict(record).items()}


def from_json(kind: type[T], values: Any) -> T:
    """Return a dataclass of plain values from a JSON object; ValueError if a key or the type of a value is wrong."""
    if not isinstance(values, dict):
        raise ValueError(f"{values!r:.60} is not an object")
    types = get_type_hints(kind)
    if wrong := types.keys() ^ values.keys():
        raise ValueError(f"{', '.join(map(repr, sorted(wrong)))} is missing or unknown")
    for name, value in values.items():
        if not _fits(value, types[name]):
            raise ValueError(f"{name} = {value!r:.60} is not a {getattr(types[name], '__name__', types[name])}")
    return kind(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


def _fits(value: Any, kind: Any) -> bool:
    if kind is float:
        return type(value) in (int, float) and math.isfinite(value)
    if get_origin(kind) is Mapping:  # of numbers
        return isinstance(value, dict) and all(_fits(number, float) for number in value.values())
    if get_origin(kind) is tuple:  # of numbers
        return isinstance(value, list) and all(_fits(number, float) for number in value)
    return any(_fits(value, one) for one in get_args(kind)) if get_args(kind) else type(value) is kind
