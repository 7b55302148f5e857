"""The last stages of a run that know ONNX: exporting the levels, and making the bundle."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from export.bundle import Level, write_bundle
from export.formats.onnx import export_checked
from export.preprocess import Preprocess
from export.replay import replay
from export.session import INPUT, OUTPUT, session
from ofa.core.files import write_json
from ofa.cost.latency.profile import reference
from ofa.data.dataset import Data
from ofa.data.loaders import Batches, eval_batches
from ofa.devices.device import Model
from ofa.devices.measure import measure
from ofa.evaluate.calibrate import calibrate
from ofa.pipeline.run import Run
from ofa.pipeline.stage import Progress, Stage
from ofa.space.arch import Value
from ofa.supernet.supernet import Supernet


def onnx_top1_percent(path: Path, batches: Batches) -> float:
    """Top-1 accuracy of an ONNX file."""
    model = session(path)
    tops = [model.run([OUTPUT], {INPUT: images.contiguous().numpy()})[0].argmax(axis=1) for images, _ in batches]
    labels = np.concatenate([labels.numpy() for _, labels in batches])
    return float(100 * np.mean(np.concatenate(tops) == labels))


def raw_images(data: Data, limit: int) -> tuple[list[NDArray[np.uint8]], list[int]]:
    """Test images as a camera or a file would give them, `[h, w]` or `[h, w, c]`, with labels."""
    chosen = np.linspace(0, len(data.test) - 1, min(limit, len(data.test))).astype(int)
    pairs = [data.test[int(i)] for i in chosen]
    return [_picture(image) for image, _ in pairs], [label for _, label in pairs]


def _picture(image: Tensor) -> NDArray[np.uint8]:
    pixels: NDArray[np.uint8] = image.permute(1, 2, 0).contiguous().numpy()
    return pixels[:, :, 0] if pixels.shape[2] == 1 else pixels


def _export(run: Run, progress: Progress) -> None:
    supernet = run.supernet()
    folder = run.path("export")
    folder.mkdir(exist_ok=True)
    entries = run.read_json("front.json")["levels"]
    networks = [_calibrated(run, supernet, entry["arch"]) for entry in entries]
    models = {
        str(i): Model.of(network, run.family.input_shape(entry["arch"]))
        for i, (network, entry) in enumerate(zip(networks, entries, strict=True))
    }
    as_in_table = run.recipe.profile.model_copy(update={"bursts": run.latency_table().device.get("bursts", "all")})
    measured = measure(run.device, models, reference(run.family), run.rng("export"), config=as_in_table)
    timings = [measured[name] for name in models]
    slowest_first = sorted(range(len(entries)), key=lambda i: -timings[i].median_ms)
    levels: list[dict[str, Any]] = []
    for level, i in enumerate(slowest_first):
        path = folder / f"level-{level}.onnx"
        resolution = int(entries[i]["arch"]["resolution"])
        validation = [images for images, _ in eval_batches(run.data, run.data.validation, resolution)]
        shape = run.family.input_shape(entries[i]["arch"])
        same = export_checked(networks[i], shape, validation, path, run.recipe.export.max_abs_diff)
        accuracy = onnx_top1_percent(path, eval_batches(run.data, run.data.test, resolution))
        levels.append(
            {
                "arch": entries[i]["arch"],
                "onnx": str(path.relative_to(run.folder)),
                "top1_percent": accuracy,
                "validation_top1_percent": entries[i]["top1_percent"],
                "latency_ms": timings[i].median_ms,
                "latency_spread_ms": timings[i].spread_ms,
                "predicted_latency_ms": entries[i]["predicted_latency_ms"],
                "parity_max_abs_diff": same.max_abs_diff,
                "macs_m": entries[i]["macs_m"],
                "params_m": entries[i]["params_m"],
            }
        )
        progress(level + 1, len(entries), f"{path.name}: {accuracy:.2f}% on test")
    write_json(folder / "levels.json", levels)


def _calibrated(run: Run, supernet: Supernet, arch: Mapping[str, Value]) -> nn.Module:
    network = supernet.extract(arch)
    limit = run.recipe.sample.calibration_images
    calibrate(network, eval_batches(run.data, run.data.train, int(arch["resolution"]), limit=limit))
    return network


def _bundle(run: Run, progress: Progress) -> None:
    data, written = run.data, []
    for level in run.read_json("export/levels.json"):
        preprocess = Preprocess(int(level["arch"]["resolution"]), data.in_channels, data.mean, data.std)
        keys = ("arch", "top1_percent", "latency_ms", "predicted_latency_ms", "macs_m", "params_m")
        written.append((Level(**{key: level[key] for key in keys}, preprocess=preprocess), run.path(level["onnx"])))
    write_bundle(run.path("bundle"), run.recipe.name, data.labels, run.device.description, written)
    images, labels = raw_images(data, limit=400)
    steps = replay(run.path("bundle"), images, labels)
    write_json(run.path("replay.json"), [asdict(step) for step in steps])
    progress(1, 1, f"{len(written)} levels")


EXPORT = Stage("export", ("search", "profile"), ("export", "sample"), _export)
BUNDLE = Stage("bundle", ("export",), (), _bundle)
