"""Bundles: one folder with the models of several levels, from the slowest to the fastest; see `docs/bundle.md`."""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from export.errors import local_path
from export.preprocess import Preprocess
from ofa.core.errors import BundleError
from ofa.core.files import replacing, write_json
from ofa.pipeline.levels import Level, from_json, to_json

MANIFEST = "manifest.json"
FORMAT, VERSION = "ofa-bundle", 2


@dataclass(frozen=True)
class BundledLevel(Level):
    """A level with its preprocessing, and the checksum of its file, which `write_bundle` fills in."""

    preprocess: Preprocess
    sha256: str = ""


@dataclass(frozen=True)
class Bundle:
    """The content of a bundle's manifest; `docs/bundle.md` explains each field."""

    folder: Path
    name: str
    created: str
    device: Mapping[str, Any]
    labels: tuple[str, ...]
    levels: tuple[BundledLevel, ...]

    def read_model(self, level: int) -> bytes:
        """Return the ONNX file of a level; BundleError if it is missing, or has changed since it was bundled."""
        path = self.folder / self.levels[level].file
        model = _read(path, "copy or make the bundle again")
        if hashlib.sha256(model).hexdigest() != self.levels[level].sha256:
            raise BundleError(f"{path} does not match its checksum in {MANIFEST}; copy or make the bundle again")
        return model


def write_bundle(
    folder: Path,
    levels: Sequence[BundledLevel],
    *,
    source: Path,
    name: str,
    labels: Sequence[str],
    device: Mapping[str, Any],
) -> Bundle:
    """Write a bundle whole or not at all; an older bundle in `folder` stays until the new one is complete.

    Levels go from the slowest to the fastest; their files, relative to `source`, are copied. Accuracies need not be
    ordered: on a small test split, either of two close levels may be ahead. Labels are in the order of the logits, and
    `device` describes what the latencies were measured on. No levels or labels, levels out of order, a missing file,
    or a folder that holds something else are a BundleError.
    """
    for i, (slower, faster) in enumerate(pairwise(levels)):
        if slower.latency_ms < faster.latency_ms:
            order = f"level {i} takes {slower.latency_ms:.3f} ms, level {i + 1} {faster.latency_ms:.3f} ms"
            raise BundleError(f"{order}; sort the levels from the slowest to the fastest")
    folder = local_path(folder)
    if folder.exists() and not (folder / MANIFEST).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise BundleError(f"{folder} exists and is not a bundle; give another folder or remove it")
    new, old = (folder.with_name(f".{folder.name}.{os.getpid()}.{end}") for end in ("new", "old"))
    try:
        new.mkdir(parents=True)
        copies = [_copy(level, source, new / f"level-{i}.onnx") for i, level in enumerate(levels)]
        manifest = {
            "format": FORMAT,
            "version": VERSION,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "name": name,
            "device": dict(device),
            "labels": list(labels),
            "levels": [to_json(level) for level in copies],
        }
        write_json(new / MANIFEST, manifest)
        load_bundle(new)
        _swap(new, folder, old)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return load_bundle(folder)


def load_bundle(folder: str | Path) -> Bundle:
    """Read a bundle and check all of it, checksums included; BundleError if anything is missing or wrong."""
    folder = local_path(folder)
    path = folder / MANIFEST
    try:
        manifest = json.loads(_read(path, "give the folder of a bundle"))
    except ValueError as error:
        raise BundleError(f"{path} is not JSON ({error}); copy or make the bundle again") from error
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        raise BundleError(f"{path} is not the manifest of a bundle; its format must be {FORMAT!r}")
    if manifest.get("version") != VERSION:
        versions = f"version {manifest.get('version')!r}, this program reads {VERSION}"
        raise BundleError(f"{path} has {versions}; make the bundle again")
    for key, kind in {"name": str, "created": str, "device": dict, "labels": list, "levels": list}.items():
        if not isinstance(manifest.get(key), kind):
            raise BundleError(f"{path}: {key!r} is missing or not a {kind.__name__}; make the bundle again")
    labels, levels = manifest["labels"], manifest["levels"]
    if not (labels and levels and all(isinstance(label, str) for label in labels)):
        raise BundleError(f"{path} must have at least one level and labels that are strings; make the bundle again")
    parsed = tuple(_level(values, f"{path}: level {i}", folder) for i, values in enumerate(levels))
    bundle = Bundle(folder, manifest["name"], manifest["created"], manifest["device"], tuple(labels), parsed)
    for i in range(len(levels)):
        bundle.read_model(i)
    return bundle


def _level(values: Any, where: str, folder: Path) -> BundledLevel:
    try:
        if isinstance(values, dict) and "preprocess" in values:
            values = values | {"preprocess": from_json(Preprocess, values["preprocess"])}
        level = from_json(BundledLevel, values)
    except (ValueError, BundleError) as error:
        raise BundleError(f"{where}: {error}; make the bundle again") from error
    file = level.file
    if Path(file).name != file or "\\" in file or (folder / file).resolve().parent != folder.resolve():
        raise BundleError(f"{where}: file {file!r} is outside the bundle's folder; do not use this bundle")
    return level


def _read(path: Path, advice: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BundleError(f"{path} cannot be read ({error.strerror}); {advice}") from error


def _copy(level: BundledLevel, source: Path, target: Path) -> BundledLevel:
    model = _read(source / level.file, "export this level first")
    with replacing(target) as temporary:
        temporary.write_bytes(model)
    return replace(level, file=target.name, sha256=hashlib.sha256(model).hexdigest())


def _swap(new: Path, folder: Path, old: Path) -> None:
    """Rename `folder` to `old` and `new` to `folder`; on failure `folder` is as before."""
    if folder.exists():
        folder.rename(old)
    try:
        new.rename(folder)
    except OSError:
        if old.exists():
            old.rename(folder)
        raise
