"""The last stages of a target: exporting its levels as files, and bundling them."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

import ofa
from export.bundle import Bundle, BundledLevel
from export.bundle_writer import write_bundle
from export.errors import one_line
from export.formats.onnx import Parity, check_parity, compare
from export.preprocess import Preprocess
from export.replay import replay
from ofa.core.errors import DeviceError, ExportError
from ofa.cost.energy import energy_mj
from ofa.data.dataset import Data
from ofa.data.loaders import eval_batches
from ofa.devices.device import Model, Timing
from ofa.evaluate.calibrate import calibrate
from ofa.evaluate.metrics import evaluate
from ofa.pipeline.finetune import load_finetuned
from ofa.pipeline.level_files import extract, range_images, score_file
from ofa.pipeline.levels import Level, ReplayStep, write_records
from ofa.pipeline.run import Run
from ofa.pipeline.stage import Progress, Stage
from ofa.pipeline.target import Target
from ofa.space.arch import Arch

_CHECK_TOLERANCE = 0.01
"""Largest difference allowed, relative to the largest logit, as random weights may scale logits up or down."""
_MODELS = 64
"""Levels are visited as often, together, as so many models of a latency table: a busy computer changes its speed every
few seconds, and a shorter measurement would see one of its moods."""


def raw_images(data: Data, limit: int) -> tuple[list[NDArray[np.uint8]], list[int]]:
    """Return up to `limit` test images as a camera or a file gives them, `[h, w]` or `[h, w, c]`, with their labels."""
    indices = np.linspace(0, len(data.test) - 1, min(limit, len(data.test))).astype(int)
    pairs = [data.test[int(i)] for i in indices]
    return [_picture(image) for image, _ in pairs], [label for _, label in pairs]


def _picture(image: Tensor) -> NDArray[np.uint8]:
    pixels: NDArray[np.uint8] = image.permute(1, 2, 0).contiguous().numpy()
    return pixels[:, :, 0] if pixels.shape[2] == 1 else pixels


def _check(target: Target) -> None:
    """Write the smallest and the largest network with random weights in each precision, and compare with PyTorch."""
    for size in ("smallest", "largest"):
        try:
            _check_arch(target, getattr(target.run.family.space, size))
        except (DeviceError, ExportError) as error:
            raise ExportError(f"the {size} network of {target.run.family.name} cannot be exported: {error}") from error


def _check_arch(target: Target, arch: Arch) -> None:
    run = target.run
    shape, n_classes = run.family.input_shape(arch), len(run.data.labels)
    network = Model(partial(run.family.build, arch), shape).module()
    batches = eval_batches(run.data, run.data.train, int(arch["resolution"]), limit=8)
    images = batches[0][0]
    with one_line(ExportError, "it does not run in PyTorch", "mend the family"):
        calibrate(network, batches)  # without, the logits of an untrained network hardly depend on the image
    for precision in dict.fromkeys(("float32", *target.precisions)):
        with tempfile.TemporaryDirectory() as folder:
            model_format = target.format
            path = Path(folder) / f"model{model_format.suffix}"
            model_format.write(network, shape, path, precision=precision, images=images.numpy(), metadata={})
            model = model_format.load(path)
            parity = compare(model, network, [images[:1], images[1:4]])
            logits = model(images[:1].numpy())
        if precision == "float32" and not parity.max_abs_diff <= _CHECK_TOLERANCE * parity.max_abs_logit:
            raise ExportError(
                f"the file differs from PyTorch by up to {parity.max_abs_diff:.3g} in logits up to "
                f"{parity.max_abs_logit:.3g}; remove randomness and control flow that depends on data"
            )
        if logits.shape != (1, n_classes):
            raise ExportError(f"it returns shape {logits.shape} for one image; return logits [batch, {n_classes}]")


def _export(target: Target, progress: Progress) -> None:
    run, supernet = target.run, target.run.supernet()
    model_format, entries = target.format, target.read_json("front.json")["levels"]
    folder = target.path("export")
    folder.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.folder, prefix=".export-") as temporary:
        drafts: list[_Draft] = []
        for entry in entries:
            network, arch = extract(run, supernet, entry["arch"]), entry["arch"]
            if target.recipe.finetune is not None:
                load_finetuned(target, network, arch)
            path = Path(temporary) / f"{len(drafts)}{model_format.suffix}"
            images, metadata = range_images(run, arch), _metadata(target, entry)
            shape = run.family.input_shape(arch)
            model_format.write(network, shape, path, precision=entry["precision"], images=images, metadata=metadata)
            drafts.append(_Draft(entry, path, network))
            progress(len(drafts), 2 * len(entries), f"{entry['precision']}, {path.stat().st_size / 2**10:.0f} KiB")
        timings = _timings(target, drafts)
        order = sorted(range(len(drafts)), key=lambda i: -timings[i].median_ms)  # the slowest first
        for old in folder.glob("level-*"):
            old.unlink()
        levels: list[Level] = []
        for i in order:
            file = f"export/level-{len(levels)}{model_format.suffix}"
            level = _level(target, drafts[i], timings[i], file)
            for path in drafts[i].path.parent.glob(f"{drafts[i].path.stem}.*"):
                path.replace(target.path(file).with_suffix(path.suffix))
            levels.append(level)
            progress(len(entries) + len(levels), 2 * len(entries), f"{level.top1_percent:.2f}% on test")
    write_records(target.folder, Level, levels)


@dataclass(frozen=True)
class _Draft:
    """A level's entry of the front, its file and the network that the file was written from."""

    entry: dict[str, Any]
    path: Path
    network: nn.Module


def _level(target: Target, draft: _Draft, timing: Timing, file: str) -> Level:
    """Score a file on the test images, compare it with PyTorch, and return the record of the level."""
    run, entry, config = target.run, draft.entry, target.config
    arch, precision = entry["arch"], entry["precision"]
    batches = eval_batches(run.data, run.data.test, int(arch["resolution"]))
    metrics, model = score_file(target.format, draft.path, batches)
    parity = compare(model, draft.network, [images for images, _ in batches])
    _check_parity(target, parity, precision, file)
    n_bytes, power = draft.path.stat().st_size, config.power
    ms_per_image, macs_m = np.array([timing.median_ms / config.batch]), np.array([entry["macs_m"]])
    return Level(
        target=target.name,
        arch=arch,
        file=file,
        format=config.format,
        precision=precision,
        bytes=n_bytes,
        size_mib=n_bytes / 2**20,
        top1_percent=metrics.top1_percent,
        accuracy_drop_percent=evaluate(draft.network, batches).top1_percent - metrics.top1_percent,
        same_top1_percent=100 * parity.same_top1,
        max_abs_diff=parity.max_abs_diff,
        validation_top1_percent=_validation_percent(target, draft),
        measured=config.table is None,
        batch=config.batch,
        latency_ms=timing.median_ms,
        latency_spread_ms=timing.spread_ms,
        predicted_latency_ms=entry["predicted_latency_ms"],
        images_per_second=1e3 * config.batch / timing.median_ms,
        energy_mj=None if power is None else float(energy_mj(ms_per_image, macs_m, power)[0]),
        macs_m=entry["macs_m"],
        params_m=entry["params_m"],
        peak_activation_mib=entry["peak_activation_mib"],
    )


def _validation_percent(target: Target, draft: _Draft) -> float:
    """Return what the search measured, or for finetuned weights the accuracy of the file on the validation images."""
    if target.recipe.finetune is None:
        return float(draft.entry["top1_percent"])
    batches = target.run.validation_batches(draft.entry["arch"])
    return score_file(target.format, draft.path, batches)[0].top1_percent


def _check_parity(target: Target, parity: Parity, precision: str, file: str) -> None:
    """Raise ExportError for a file that computes something else than its network; integers may change classes."""
    name, allowed = f"target {target.name!r}: {file}", target.recipe.export.max_abs_diff
    if precision != "float32":
        check_parity(name, parity, precision)
    elif not (parity.max_abs_diff <= allowed and parity.same_top1 == 1):
        raise ExportError(
            f"{name} differs from PyTorch by up to {parity.max_abs_diff:.3g} (allowed: {allowed:.3g}) and gives the "
            f"same class for {parity.same_top1:.2%} of {parity.n_images} images; remove randomness and control flow "
            "that depends on data, or raise export.max_abs_diff"
        )


def _timings(target: Target, drafts: Sequence[_Draft]) -> list[Timing]:
    """Measure the very files by the same statistic as the latency table; predicted latencies if a table was given."""
    run, timings = target.run, dict[int, Timing]()
    for precision in dict.fromkeys(draft.entry["precision"] for draft in drafts):
        positions = [i for i, draft in enumerate(drafts) if draft.entry["precision"] == precision]
        if target.config.table is not None:
            timings |= {i: Timing(drafts[i].entry["predicted_latency_ms"], 0.0, 1) for i in positions}
            continue
        models = {
            str(i): Model.of(drafts[i].network, run.family.input_shape(drafts[i].entry["arch"]), file=drafts[i].path)
            for i in positions
        }
        measured = target.measure(precision, models, "export", times=max(1, _MODELS // len(models)))
        timings |= {int(i): timing for i, timing in measured.items()}
    return [timings[i] for i in range(len(drafts))]


def _metadata(target: Target, entry: dict[str, Any]) -> dict[str, str]:
    """Return what a file says of itself, as JSON values by name."""
    arch = entry["arch"]
    about = {
        "name": target.recipe.name,
        "target": target.name,
        "precision": entry["precision"],
        "arch": arch,
        "labels": list(target.run.data.labels),
        "preprocess": vars(_preprocess(target.run, arch)),
        "ofa_version": ofa.__version__,
    }
    return {f"ofa.{key}": json.dumps(value) for key, value in about.items()}


def _preprocess(run: Run, arch: Mapping[str, int | float]) -> Preprocess:
    data = run.data
    return Preprocess(int(arch["resolution"]), data.in_channels, tuple(data.mean), tuple(data.std), data.background)


def bundle_targets(run: Run, targets: Sequence[Target], folder: Path) -> Bundle:
    """Write the levels of some targets of a run as one bundle; see `write_bundle`.

    Raises:
        BundleError: the folder holds something else.
        RunError: a target has no exported levels, or they were made with another recipe.
    """
    for target in targets:
        target.require("export", "bundle")
    levels = [
        BundledLevel(
            **vars(level) | {"file": f"targets/{target.name}/{level.file}"},
            preprocess=_preprocess(run, level.arch),
        )
        for target in targets
        for level in target.levels
    ]
    return write_bundle(
        folder,
        levels,
        source=run.folder,
        name=run.recipe.name,
        labels=run.data.labels,
        targets={target.name: target.latency_table(target.levels[0].precision).device for target in targets},
        site=any(target.config.format == "web" for target in targets),
    )


def _bundle(target: Target, progress: Progress) -> None:
    folder = target.path("bundle")
    bundle = bundle_targets(target.run, [target], folder)
    images, labels = raw_images(target.run.data, limit=400)
    write_records(target.folder, ReplayStep, replay(folder, images, labels))
    progress(1, 1, f"{len(bundle.levels)} levels")


EXPORT = Stage(
    "export",
    ("finetune", "profile"),
    ("export", "sample"),
    _export,
    target_keys=("format", "format_options"),
    check=_check,
)
BUNDLE = Stage("bundle", ("export",), (), _bundle, target_keys=())
