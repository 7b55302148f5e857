"""Bundles: one folder with the models of several levels, for one or more targets; see `docs/bundle.md`."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from export.errors import local_path
from export.preprocess import Preprocess
from export.shared_weights import assemble
from ofa.core.errors import BundleError
from ofa.core.files import parse_json
from ofa.core.pictures import WHITE
from ofa.pipeline.levels import Level, from_json

MANIFEST = "manifest.json"
FORMAT, VERSION = "ofa-bundle", 3
SHARED_FORMAT = "onnx"
"""The model format whose files can share their weights."""
_ADVICE = "copy or make the bundle again"

T = TypeVar("T")


@dataclass(frozen=True)
class BundledLevel(Level):
    """A level with its preprocessing, and the checksum of its model, which `write_bundle` fills in."""

    preprocess: Preprocess
    sha256: str = ""


@dataclass(frozen=True)
class Weights:
    """The file of the tensors that the levels' ONNX models are cut from, and its checksum."""

    file: str
    sha256: str


@dataclass(frozen=True)
class Bundle:
    """The content of a bundle's manifest; `docs/bundle.md` explains each field."""

    folder: Path
    name: str
    created: str
    targets: Mapping[str, Mapping[str, Any]]
    labels: tuple[str, ...]
    weights: Weights | None
    levels: tuple[BundledLevel, ...]

    def levels_of(self, target: str) -> tuple[BundledLevel, ...]:
        """Return the levels of a target, from the slowest to the fastest; BundleError for an unknown target."""
        if target not in self.targets:
            raise BundleError(f"{self.folder} has no target {target!r}; choose from {', '.join(self.targets)}")
        return tuple(level for level in self.levels if level.target == target)

    def read_model(self, level: BundledLevel) -> bytes:
        """Return the file of a level; BundleError if a file is missing, or has changed since it was bundled."""
        path = self.folder / level.file
        model = read_file(path, _ADVICE)
        if self.weights is not None and level.format == SHARED_FORMAT:
            try:
                model = assemble(model, _tensors(self.folder / self.weights.file))
            except BundleError as error:
                raise BundleError(f"{path} cannot be assembled: {error}; {_ADVICE}") from error
        if hashlib.sha256(model).hexdigest() != level.sha256:
            raise BundleError(f"{path} does not match its checksum in {MANIFEST}; {_ADVICE}")
        return model


def load_bundle(folder: str | Path) -> Bundle:
    """Read a bundle and check all of it, checksums included; BundleError if anything is missing or wrong."""
    folder = local_path(folder)
    path = folder / MANIFEST
    try:
        manifest = parse_json(read_file(path, "give the folder of a bundle"))
    except ValueError as error:
        raise BundleError(f"{path} is not JSON ({error}); {_ADVICE}") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise BundleError(f"{path} is not the manifest of a bundle; its format must be {FORMAT!r}")
    if manifest.get("version") != VERSION:
        versions = f"version {manifest.get('version')!r}, this program reads {VERSION}"
        raise BundleError(f"{path} has {versions}; make the bundle again")
    bundle = _parse(manifest, path)
    if bundle.weights is not None:
        file = folder / bundle.weights.file
        if hashlib.sha256(_tensors(file).data).hexdigest() != bundle.weights.sha256:
            raise BundleError(f"{file} does not match its checksum in {MANIFEST}; {_ADVICE}")
    for level in bundle.levels:
        bundle.read_model(level)
    return bundle


def read_file(path: Path, advice: str) -> bytes:
    """Return the content of a file; BundleError, which ends with the advice, if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path} cannot be read ({error.strerror}); {advice}") from error


def _tensors(path: Path) -> NDArray[np.uint8]:
    """Map the file of tensors into memory."""
    try:
        return np.memmap(path, np.uint8, mode="r") if path.stat().st_size else np.empty(0, np.uint8)
    except OSError as error:
        raise BundleError(f"{path} cannot be read ({error.strerror}); {_ADVICE}") from error


def _parse(manifest: Mapping[str, Any], path: Path) -> Bundle:
    """Return the bundle of a manifest at `path`; BundleError if a value is missing or wrong."""
    for key, kind in {"name": str, "created": str, "targets": dict, "labels": list, "levels": list}.items():
        if not isinstance(manifest.get(key), kind):
            raise BundleError(f"{path}: {key!r} is missing or not a {kind.__name__}; make the bundle again")
    if "weights" not in manifest:
        raise BundleError(f"{path}: 'weights' is missing; make the bundle again")
    labels, targets, weights = manifest["labels"], manifest["targets"], manifest["weights"]
    if not (labels and manifest["levels"] and all(isinstance(label, str) for label in labels)):
        raise BundleError(f"{path} must have at least one level and labels that are strings; make the bundle again")
    levels = tuple(_level(values, f"{path}: level {i}", path.parent) for i, values in enumerate(manifest["levels"]))
    used = {level.target for level in levels}
    if used != targets.keys() or not all(isinstance(description, dict) for description in targets.values()):
        raise BundleError(
            f"{path} describes the targets {sorted(targets)!r:.200} and has levels for {sorted(used)!r:.200}; each "
            "target needs an object and at least one level; make the bundle again"
        )
    if weights is not None:
        weights = _record(Weights, weights, f"{path}: weights")
        _check_inside(weights.file, f"{path}: weights", path.parent)
    return Bundle(path.parent, manifest["name"], manifest["created"], targets, tuple(labels), weights, levels)


def _level(values: Any, where: str, folder: Path) -> BundledLevel:
    if isinstance(values, dict) and "preprocess" in values:
        preprocess = values["preprocess"]
        if isinstance(preprocess, dict):
            preprocess = {"background": list(WHITE)} | preprocess  # bundles of earlier versions name none
        values = values | {"preprocess": _record(Preprocess, preprocess, where)}
    level = _record(BundledLevel, values, where)
    _check_inside(level.file, where, folder)
    return level


def _record(kind: type[T], values: Any, where: str) -> T:
    try:
        return from_json(kind, values)
    except (ValueError, BundleError) as error:
        raise BundleError(f"{where}: {error}; make the bundle again") from error


def _check_inside(file: str, where: str, folder: Path) -> None:
    if Path(file).name != file or set(file) & {"\\", "\0"} or (folder / file).resolve().parent != folder.resolve():
        raise BundleError(f"{where}: file {file!r} is outside the bundle's folder; do not use this bundle")
