"""The last stages of a run that know ONNX: exporting the levels, and making the bundle."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from export.bundle import Level, write_bundle
from export.onnx import export_checked
from export.preprocess import Preprocess
from export.replay import replay
from export.session import INPUT, OUTPUT, session
from ofa.calibrate import calibrate
from ofa.data import Batches, Data, eval_batches
from ofa.files import write_json
from ofa.pipeline.run import Progress, Run, Stage
from ofa.pipeline.stages import load_supernet


def onnx_accuracy_percent(path: Path, batches: Batches) -> float:
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
    supernet = load_supernet(run)
    entries = run.read_json("front.json")["levels"]
    folder = run.path("export")
    folder.mkdir(exist_ok=True)
    levels: list[dict[str, Any]] = []
    networks = []
    for i, entry in enumerate(entries):
        arch = run.family.space.arch(entry["arch"])
        resolution, path = int(arch["resolution"]), folder / f"level-{i}.onnx"
        network = supernet.extract(arch)
        training = eval_batches(run.data, run.data.train, resolution, limit=run.recipe.sample.calibration_images)
        calibrate(network, training)
        validation = eval_batches(run.data, run.data.validation, resolution)
        shape = run.family.input_shape(arch)
        same = export_checked(
            network, shape, [images for images, _ in validation], path, run.recipe.export.max_abs_diff
        )
        accuracy = onnx_accuracy_percent(path, eval_batches(run.data, run.data.test, resolution))
        networks.append((network, shape))
        levels.append(
            {
                "arch": dict(arch),
                "onnx": str(path.relative_to(run.folder)),
                "accuracy_top1_percent": accuracy,
                "validation_accuracy_percent": entry["accuracy_percent"],
                "predicted_latency_ms": entry["predicted_latency_ms"],
                "parity_max_abs_diff": same.max_abs_diff,
                "macs_m": entry["macs_m"],
                "params_m": entry["params_m"],
            }
        )
        progress(i + 1, len(entries), f"{path.name}: {accuracy:.2f}% on test")
    for level, timing in zip(levels, run.device.measure(networks), strict=True):
        level |= {"latency_ms": timing.median_ms, "latency_spread_ms": timing.spread_ms}
    levels.sort(key=lambda level: -level["latency_ms"])
    write_json(folder / "levels.json", levels)


def _bundle(run: Run, progress: Progress) -> None:
    data, written = run.data, []
    for level in run.read_json("export/levels.json"):
        preprocess = Preprocess(int(level["arch"]["resolution"]), data.in_channels, data.mean, data.std)
        keys = ("arch", "accuracy_top1_percent", "latency_ms", "predicted_latency_ms", "macs_m", "params_m")
        written.append((Level(**{key: level[key] for key in keys}, preprocess=preprocess), run.path(level["onnx"])))
    write_bundle(run.path("bundle"), run.recipe.name, data.labels, run.device.description, written)
    images, labels = raw_images(data, limit=400)
    steps = replay(run.path("bundle"), images, labels)
    write_json(run.path("replay.json"), [asdict(step) for step in steps])
    progress(1, 1, f"{len(written)} levels")


EXPORT = Stage("export", ("search", "profile"), ("export", "sample"), _export)
BUNDLE = Stage("bundle", ("export",), (), _bundle)
