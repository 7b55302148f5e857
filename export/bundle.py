"""Bundles: one folder with the models of several levels, from the most accurate to the fastest.

Format, version 1. The folder holds `level-0.onnx`, `level-1.onnx`, ... and `manifest.json`, an object of

    format     "ofa-bundle"
    version    1
    created    date and time, ISO 8601, UTC
    name       of the bundle
    device     what the latencies were measured on: object, see `ofa.devices.device.Device.description`
    labels     list of class names, in the order of the logits
    levels     list of at least one object, level 0 the most accurate, the last the fastest:
        file, sha256            name inside the folder; checksum, 64 hexadecimal digits
        arch                    object from choice name to value
        top1_percent   on held-out images
        latency_ms              measured on `device`, batch 1
        predicted_latency_ms    by the latency table, or null
        macs_m, params_m        millions
        preprocess              resolution, in_channels, mean and std; see `export.preprocess`

Every model takes "images" `[batch, in_channels, resolution, resolution]` and gives "logits" `[batch, labels]`.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from export.preprocess import Preprocess
from ofa.core.errors import BundleError
from ofa.core.files import write_json

MANIFEST = "manifest.json"
FORMAT = "ofa-bundle"
VERSION = 1
_NUMBERS = ("top1_percent", "latency_ms", "predicted_latency_ms", "macs_m", "params_m")


@dataclass(frozen=True)
class Level:
    """One deployed subnet. The fields are those of the manifest; `write_bundle` fills in `file` and `sha256`."""

    arch: Mapping[str, int | float]
    top1_percent: float
    latency_ms: float
    predicted_latency_ms: float | None
    macs_m: float
    params_m: float
    preprocess: Preprocess
    file: str = ""
    sha256: str = ""


@dataclass(frozen=True)
class Bundle:
    """What a bundle's manifest says; see the module's docstring."""

    folder: Path
    name: str
    created: str
    device: Mapping[str, Any]
    labels: tuple[str, ...]
    levels: tuple[Level, ...]

    def read_model(self, level: int) -> bytes:
        """The ONNX file of a level, which must still be the one that the manifest describes.

        Raises:
            BundleError: the file is missing or has changed.
        """
        path = self.folder / self.levels[level].file
        try:
            model = path.read_bytes()
        except OSError as error:
            raise BundleError(f"{path} cannot be read ({error.strerror}); make the bundle again") from error
        if hashlib.sha256(model).hexdigest() != self.levels[level].sha256:
            raise BundleError(f"{path} does not match its checksum in {MANIFEST}; copy or make the bundle again")
        return model


def write_bundle(
    folder: Path,
    name: str,
    labels: Sequence[str],
    device: Mapping[str, Any],
    levels: Sequence[tuple[Level, Path]],
) -> Bundle:
    """Writes a bundle whole or not at all; an older bundle in `folder` stays until the new one is complete.

    Args:
        folder: the bundle to be; anything there that is not a bundle is left alone.
        name: of the bundle.
        labels: class names, in the order of the logits.
        device: description of what measured the latencies.
        levels: each with its ONNX file, which is copied; from the slowest to the fastest. Their accuracies
            are not compared: of two close levels, either may be ahead on a small test split.

    Raises:
        BundleError: no levels or labels, levels out of order, a source that is missing, or `folder` in use.
    """
    for i, ((upper, _), (lower, _)) in enumerate(pairwise(levels)):
        if upper.latency_ms < lower.latency_ms:
            raise BundleError(
                f"level {i} takes {upper.latency_ms:.3f} ms, level {i + 1} {lower.latency_ms:.3f} ms; sort the levels "
                "from the slowest to the fastest"
            )
    if folder.exists() and not (folder / MANIFEST).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise BundleError(f"{folder} is there and is not a bundle; give another folder or remove it")
    new, old = (folder.with_name(f".{folder.name}.{os.getpid()}.{end}") for end in ("new", "old"))
    try:
        new.mkdir(parents=True)
        written = [_copy(level, source, new / f"level-{i}.onnx") for i, (level, source) in enumerate(levels)]
        manifest = {
            "format": FORMAT,
            "version": VERSION,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "name": name,
            "device": dict(device),
            "labels": list(labels),
            "levels": [_level_dict(level) for level in written],
        }
        write_json(new / MANIFEST, manifest)
        load_bundle(new)
        _swap(new, folder, old)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return load_bundle(folder)


def load_bundle(folder: Path) -> Bundle:
    """Reads a bundle and checks all of it, checksums included.

    Raises:
        BundleError: anything missing, malformed, of an unknown version or changed since it was written.
    """
    path = folder / MANIFEST
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BundleError(f"{path} cannot be read ({error.strerror}); give the folder of a bundle") from error
    except ValueError as error:
        raise BundleError(f"{path} is not JSON ({error}); copy or make the bundle again") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise BundleError(f"{path} is not the manifest of a bundle; its format must be {FORMAT!r}")
    if manifest.get("version") != VERSION:
        raise BundleError(
            f"{path} has version {manifest.get('version')!r}, this program reads {VERSION}; make the bundle again"
        )
    labels = _get(manifest, "labels", list, path)
    if not labels or not all(isinstance(label, str) for label in labels):
        raise BundleError(f"{path}: labels must be a list of at least one text; make the bundle again")
    levels = _get(manifest, "levels", list, path)
    if not levels:
        raise BundleError(f"{path} has no levels; make the bundle again with at least one")
    bundle = Bundle(
        folder,
        _get(manifest, "name", str, path),
        _get(manifest, "created", str, path),
        _get(manifest, "device", dict, path),
        tuple(labels),
        tuple(_level(values, f"{path}: level {i}", folder) for i, values in enumerate(levels)),
    )
    for level in range(len(levels)):
        bundle.read_model(level)
    return bundle


def _level(values: Any, where: str, folder: Path) -> Level:
    if not isinstance(values, dict):
        raise BundleError(f"{where} is not an object; make the bundle again")
    file = _get(values, "file", str, where)
    if Path(file).name != file or "\\" in file or (folder / file).resolve().parent != folder.resolve():
        raise BundleError(f"{where}: file {file!r} leaves the bundle's folder; do not use this bundle")
    numbers = {name: _number(values, name, where, optional=name == "predicted_latency_ms") for name in _NUMBERS}
    arch = _get(values, "arch", dict, where)
    for name in arch:
        _number(arch, name, f"{where}: arch")
    try:
        preprocess = Preprocess.from_dict(_get(values, "preprocess", dict, where))
    except BundleError as error:
        raise BundleError(f"{where}: {error}") from error
    return Level(**numbers, arch=arch, preprocess=preprocess, file=file, sha256=_get(values, "sha256", str, where))


def _level_dict(level: Level) -> dict[str, Any]:
    plain = asdict(replace(level, arch=dict(level.arch)))
    return {"file": level.file, "sha256": level.sha256} | plain | {"preprocess": level.preprocess.to_dict()}


def _get(values: dict[str, Any], key: str, kind: type, where: object) -> Any:
    if not isinstance(values.get(key), kind):
        raise BundleError(f"{where}: {key!r} is missing or not a {kind.__name__}; make the bundle again")
    return values[key]


def _number(values: dict[str, Any], key: str, where: str, optional: bool = False) -> Any:
    value: Any = values.get(key)
    if optional and key in values and value is None:
        return None
    if type(value) not in (int, float) or not math.isfinite(value):
        raise BundleError(f"{where}: {key!r} is missing or not a finite number; make the bundle again")
    return value


def _copy(level: Level, source: Path, target: Path) -> Level:
    try:
        model = source.read_bytes()
    except OSError as error:
        raise BundleError(f"{source} cannot be read ({error.strerror}); export this level first") from error
    with target.open("wb") as file:
        file.write(model)
        file.flush()
        os.fsync(file.fileno())
    return replace(level, file=target.name, sha256=hashlib.sha256(model).hexdigest())


def _swap(new: Path, folder: Path, old: Path) -> None:
    """Puts `new` in the place of `folder`, by way of `old`; on failure `folder` is as before."""
    if folder.exists():
        folder.rename(old)
    try:
        new.rename(folder)
    except OSError:
        if old.exists():
            old.rename(folder)
        raise
