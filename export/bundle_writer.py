"""Writing bundles, whole or not at all; see `docs/bundle.md`."""

import hashlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from export.bundle import (
    FORMAT,
    MANIFEST,
    SHARED_FORMAT,
    VERSION,
    Bundle,
    BundledLevel,
    Weights,
    load_bundle,
    read_file,
)
from export.errors import local_path
from export.formats.sharing import share
from export.web.site import service_worker, site_files
from ofa.core.errors import BundleError
from ofa.core.files import replacing, write_json
from ofa.pipeline.levels import to_json


def write_bundle(
    folder: Path,
    levels: Sequence[BundledLevel],
    *,
    source: Path,
    name: str,
    labels: Sequence[str],
    targets: Mapping[str, Mapping[str, Any]],
    shared: bool = True,
    site: bool = False,
) -> Bundle:
    """Write a bundle whole or not at all; an older bundle in `folder` stays until the new one is complete.

    The levels of each target go from the slowest to the fastest; their files are relative to `source`. Accuracies need
    not be ordered: on a small test split, either of two close levels may be ahead.

    Args:
        folder: of the new bundle.
        levels: at least one for each target.
        source: folder that the files of the levels are relative to.
        name: of the bundle.
        labels: class names in the order of the logits.
        targets: description of the device that each target's latencies were measured on.
        shared: whether to store the tensors that ONNX levels share once; files of other formats are stored as they are.
        site: whether to add the page and the runtime for browsers.

    Raises:
        BundleError: there are no levels or labels, levels are out of order, a file is missing, or the folder holds
            something else.
        DeviceError: a site needs onnxruntime-web, which is not there.
    """
    _check_order(levels)
    folder = local_path(folder).resolve()  # a link stays one
    if folder.exists() and not (folder / MANIFEST).is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise BundleError(f"{folder} exists and is not a bundle; give another folder or remove it")
    models = [read_file(source / level.file, "export this level first") for level in levels]
    new, old = (folder.with_name(f".{folder.name}.{end}") for end in ("new", "old"))
    shutil.rmtree(new, ignore_errors=True)  # of a process that was killed
    try:
        new.mkdir(parents=True)
        weights, bundled = _write_models(new, levels, models, shared)
        manifest = {
            "format": FORMAT,
            "version": VERSION,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "name": name,
            "targets": {target: dict(description) for target, description in targets.items()},
            "labels": list(labels),
            "weights": None if weights is None else asdict(weights),
            "levels": [to_json(level) for level in bundled],
        }
        write_json(new / MANIFEST, manifest)
        if site:
            _write_site(new)
        load_bundle(new)
        _swap(new, folder, old)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return load_bundle(folder)


def _write_models(
    folder: Path, levels: Sequence[BundledLevel], models: Sequence[bytes], shared: bool
) -> tuple[Weights | None, list[BundledLevel]]:
    """Write the files of the levels, and of the tensors that they share, and return what the manifest says of them."""
    weights, files = None, dict(enumerate(models))
    sharing = [i for i, level in enumerate(levels) if shared and level.format == SHARED_FORMAT]
    if sharing:
        tensors, graphs = share([models[i] for i in sharing])
        weights = Weights("weights.bin", _write(folder / "weights.bin", tensors))
        files |= dict(zip(sharing, graphs, strict=True))
    bundled = []
    for i, (level, model) in enumerate(zip(levels, models, strict=True)):
        file = f"level-{i}{'.graph' if i in sharing else Path(level.file).suffix}"
        _write(folder / file, files[i])
        bundled.append(replace(level, file=file, sha256=hashlib.sha256(model).hexdigest()))
    return weights, bundled


def _write_site(folder: Path) -> None:
    files = site_files()
    files["service-worker.js"] = service_worker(files, (folder / MANIFEST).read_bytes())
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        _write(folder / name, content)


def _check_order(levels: Sequence[BundledLevel]) -> None:
    for target in {level.target: None for level in levels}:
        of_target = [(i, level.latency_ms) for i, level in enumerate(levels) if level.target == target]
        for (i, slower_ms), (j, faster_ms) in pairwise(of_target):
            if slower_ms < faster_ms:
                order = f"level {i} takes {slower_ms:.3f} ms, level {j} {faster_ms:.3f} ms"
                raise BundleError(f"{target}: {order}; sort the levels from the slowest to the fastest")


def _write(path: Path, content: bytes) -> str:
    """Write a file and return its checksum."""
    with replacing(path) as temporary:
        temporary.write_bytes(content)
    return hashlib.sha256(content).hexdigest()


def _swap(new: Path, folder: Path, old: Path) -> None:
    """Rename `folder` to `old` and `new` to `folder`; on failure `folder` is as before."""
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)  # of a process that was killed after this
        folder.rename(old)
    try:
        new.rename(folder)
    except OSError:
        if old.exists():
            old.rename(folder)
        raise
