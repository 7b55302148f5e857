"""The last stages of a run that know ONNX: exporting the levels, and bundling them."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from export.bundle import BundledLevel
from export.bundle_writer import write_bundle
from export.devices.local import onnx_file
from export.errors import one_line
from export.formats.onnx import compare, export_onnx
from export.preprocess import Preprocess
from export.replay import replay
from export.session import run as run_session
from export.session import session
from ofa.core.errors import DeviceError, ExportError
from ofa.cost.counted import peak_activation_mib
from ofa.cost.latency.profile import reference
from ofa.data.dataset import Data
from ofa.data.loaders import Batches, eval_batches
from ofa.devices.device import Model, Timing
from ofa.devices.measure import measure
from ofa.evaluate.calibrate import calibrate
from ofa.pipeline.levels import Level, ReplayStep, write_records
from ofa.pipeline.run import Run
from ofa.pipeline.stage import Progress, Stage
from ofa.space.arch import Arch, Value
from ofa.supernet.supernet import Supernet

_CHECK_TOLERANCE = 0.01
"""Largest difference allowed, relative to the largest logit, as random weights may scale logits up or down."""


def onnx_top1_percent(path: Path, batches: Batches) -> float:
    """Return the top-1 accuracy of an ONNX file in percent."""
    model = session(path)
    classes = [run_session(model, images.contiguous().numpy()).argmax(axis=1) for images, _ in batches]
    labels = np.concatenate([labels.numpy() for _, labels in batches])
    return float(100 * np.mean(np.concatenate(classes) == labels))


def raw_images(data: Data, limit: int) -> tuple[list[NDArray[np.uint8]], list[int]]:
    """Return up to `limit` test images as a camera or a file gives them, `[h, w]` or `[h, w, c]`, with their labels."""
    indices = np.linspace(0, len(data.test) - 1, min(limit, len(data.test))).astype(int)
    pairs = [data.test[int(i)] for i in indices]
    return [_picture(image) for image, _ in pairs], [label for _, label in pairs]


def _picture(image: Tensor) -> NDArray[np.uint8]:
    pixels: NDArray[np.uint8] = image.permute(1, 2, 0).contiguous().numpy()
    return pixels[:, :, 0] if pixels.shape[2] == 1 else pixels


def _check(run: Run) -> None:
    """Export the smallest and the largest network of the family with random weights, and compare with PyTorch."""
    for size in ("smallest", "largest"):
        try:
            _check_arch(run, getattr(run.family.space, size))
        except (DeviceError, ExportError) as error:
            raise ExportError(f"the {size} network of {run.family.name} cannot be exported: {error}") from error


def _check_arch(run: Run, arch: Arch) -> None:
    shape, n_classes = run.family.input_shape(arch), len(run.data.labels)
    network = Model(partial(run.family.build, arch), shape).module()
    batches = eval_batches(run.data, run.data.train, int(arch["resolution"]), limit=8)
    images = batches[0][0]
    with one_line(ExportError, "it does not run in PyTorch", "mend the family"):
        calibrate(network, batches)  # without, the logits of an untrained network hardly depend on the image
    with onnx_file(Model.of(network, shape)) as path:
        model = session(path)
        parity = compare(model, network, [images[:1], images[1:4]])
    if not parity.max_abs_diff <= _CHECK_TOLERANCE * parity.max_abs_logit:
        raise ExportError(
            f"ONNX differs from PyTorch by up to {parity.max_abs_diff:.3g} in logits up to {parity.max_abs_logit:.3g}; "
            "remove randomness and control flow that depends on data"
        )
    logits = run_session(model, images[:1].numpy())
    if logits.shape != (1, n_classes):
        raise ExportError(f"it returns shape {logits.shape} for one image; return logits [batch, {n_classes}]")


def _export(run: Run, progress: Progress) -> None:
    supernet = run.supernet()
    run.path("export").mkdir(exist_ok=True)
    entries = run.read_json("front.json")["levels"]
    networks = [_calibrated(run, supernet, entry["arch"]) for entry in entries]
    timings = _measure(run, networks, [run.family.input_shape(entry["arch"]) for entry in entries])
    triples = zip(entries, networks, timings, strict=True)
    levels: list[Level] = []
    for entry, network, timing in sorted(triples, key=lambda triple: -triple[2].median_ms):  # the slowest first
        arch, file = entry["arch"], f"export/level-{len(levels)}.onnx"
        resolution, path = int(arch["resolution"]), run.path(file)
        validation = [images for images, _ in eval_batches(run.data, run.data.validation, resolution)]
        tolerance = run.recipe.export.max_abs_diff
        parity = export_onnx(network, run.family.input_shape(arch), path, images=validation, tolerance=tolerance)
        assert parity is not None  # as images are given
        level = Level(
            target="local",
            arch=arch,
            file=file,
            format="onnx",
            precision="float32",
            bytes=path.stat().st_size,
            size_mib=path.stat().st_size / 2**20,
            top1_percent=onnx_top1_percent(path, eval_batches(run.data, run.data.test, resolution)),
            accuracy_drop_percent=0.0,
            same_top1_percent=100 * parity.same_top1,
            max_abs_diff=parity.max_abs_diff,
            validation_top1_percent=entry["top1_percent"],
            measured=True,
            batch=1,
            latency_ms=timing.median_ms,
            latency_spread_ms=timing.spread_ms,
            predicted_latency_ms=entry["predicted_latency_ms"],
            images_per_second=1e3 / timing.median_ms,
            energy_mj=None,
            macs_m=entry["macs_m"],
            params_m=entry["params_m"],
            peak_activation_mib=float(peak_activation_mib(run.family)(run.family.space.rows([arch]))[0]),
        )
        levels.append(level)
        progress(len(levels), len(entries), f"{path.name}: {level.top1_percent:.2f}% on test")
    write_records(run.folder, Level, levels)


def _calibrated(run: Run, supernet: Supernet, arch: Mapping[str, Value]) -> nn.Module:
    network = supernet.extract(arch)
    calibrate(network, run.calibration_batches(arch))
    return network


def _measure(run: Run, networks: list[nn.Module], shapes: list[tuple[int, ...]]) -> list[Timing]:
    """Measure whole networks by the same statistic as the latency table."""
    models = {str(i): Model.of(*pair) for i, pair in enumerate(zip(networks, shapes, strict=True))}
    config = run.recipe.profile.model_copy(update={"bursts": run.latency_table().device.get("bursts", "all")})
    timings = measure(run.device, models, reference(run.family), run.rng("export"), config=config)
    return [timings[name] for name in models]


def _bundle(run: Run, progress: Progress) -> None:
    data, levels = run.data, run.levels
    bundled = []
    for level in levels:
        preprocess = Preprocess(int(level.arch["resolution"]), data.in_channels, data.mean, data.std)
        bundled.append(BundledLevel(**vars(level), preprocess=preprocess))
    write_bundle(
        run.path("bundle"),
        bundled,
        source=run.folder,
        name=run.recipe.name,
        labels=data.labels,
        targets={level.target: run.device.description for level in levels},
    )
    images, labels = raw_images(data, limit=400)
    write_records(run.folder, ReplayStep, replay(run.path("bundle"), images, labels))
    progress(1, 1, f"{len(levels)} levels")


EXPORT = Stage("export", ("search", "profile"), ("export", "sample"), _export, check=_check)
BUNDLE = Stage("bundle", ("export",), (), _bundle)
