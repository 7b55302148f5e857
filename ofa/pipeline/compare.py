"""Stage `compare`: what the networks of each target take and lose on every other target."""

import json
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ofa.core.errors import DeviceError
from ofa.core.files import write_json
from ofa.devices.device import Model
from ofa.pipeline.accuracy_store import read_accuracies
from ofa.pipeline.level_files import extract
from ofa.pipeline.measured import precision_drop, predicted_and_estimated
from ofa.pipeline.run import Run
from ofa.pipeline.stage import Progress, Stage, all_stages
from ofa.pipeline.target import Target

Entry = dict[str, Any]

_FILE = "compare.json"


def _compare(run: Run, progress: Progress) -> None:
    """Measure the levels of each target on every other one, or predict them where the device is not at hand."""
    bundle, profile = all_stages()["bundle"], all_stages()["profile"]
    targets = [target for target in run.targets if target.finished(bundle)]
    earlier = {_key(entry): entry for entry in read_comparison(run)}
    entries: list[Entry] = []
    for i, target in enumerate(targets):
        others = [other for other in targets if other.name != target.name]
        table = target.fingerprint(profile)
        of_target = [entry | {"table": table} for entry in _predicted(target, others)]
        missing = [entry for entry in of_target if not earlier.get(_key(entry), {}).get("measured")]
        measured_ms = {key: entry["latency_ms"] for key, entry in earlier.items() if entry["measured"]}
        measured_ms |= _measured(target, missing)
        for entry in of_target:
            if _key(entry) in measured_ms:
                entry |= {"latency_ms": measured_ms[_key(entry)], "measured": True}
        entries += of_target
        progress(i + 1, len(targets), target.name)
    write_json(run.path(_FILE), {"entries": entries})


def read_comparison(run: Run) -> list[Entry]:
    """Return the entries that the stage wrote, one for each level on each other target; none if it never ran.

    Each has the level's `arch`, the target that it was made for (`made_for`) with its number there (`level`), the
    target that it runs on (`target`) and the `precision` there; `latency_ms`, `measured` or predicted, and
    `predicted_latency_ms`; `estimated_top1_percent`; by how many points the target's own front is more accurate in
    that time (`lost_top1_percent`), and by what share it is faster at that accuracy (`slower_percent`). These two
    compare predictions with predictions; they are None outside of the front.
    """
    entries: list[Entry] = run.read_json(_FILE)["entries"] if run.path(_FILE).exists() else []
    return entries


def _key(entry: Mapping[str, Any]) -> str:
    """Return what a measurement depends on."""
    return json.dumps([entry[key] for key in ("target", "precision", "arch", "table")])


def _predicted(target: Target, others: Sequence[Target]) -> list[Entry]:
    """Return the entries of other targets' levels on a target, with predicted latencies.

    All accuracies are estimated by the target's predictor, as those of two predictors differ by more than archs do.
    """
    run, space = target.run, target.run.family.space
    accuracies = read_accuracies(run, file_format=target.file_format)
    float32, predictor = accuracies["float32"], target.predictor()
    estimates = dict(zip(float32, predicted_and_estimated(run, float32, predictor)[1].tolist(), strict=True))
    drops = {precision: precision_drop(run, accuracies, precision) for precision in target.precisions}

    def top1_percent(arch: Mapping[str, Any], precision: str) -> float:
        row = space.rows([arch])
        return float(estimates[space.arch(arch)] - drops[precision](row)[0])

    front = [
        (one["predicted_latency_ms"], top1_percent(one["arch"], one["precision"]))
        for one in target.read_json("front.json")["front"]
    ]
    tables = {precision: target.latency_table(precision) for precision in target.precisions}
    levels = [(other, *numbered) for other in others for numbered in enumerate(other.levels)]
    entries = []
    for other, number, level in levels:
        precision = level.precision if level.precision in target.precisions else target.precisions[0]
        latency_ms = float(tables[precision](space.rows([level.arch]))[0])
        accuracy = top1_percent(level.arch, precision)
        as_fast = [percent for ms, percent in front if ms <= latency_ms]
        as_good = [ms for ms, percent in front if percent >= accuracy]
        entries.append(
            {
                "made_for": other.name,
                "level": number,
                "target": target.name,
                "precision": precision,
                "arch": dict(level.arch),
                "latency_ms": latency_ms,
                "measured": False,
                "predicted_latency_ms": latency_ms,
                "estimated_top1_percent": accuracy,
                "lost_top1_percent": max(as_fast) - accuracy if as_fast else None,
                "slower_percent": 100 * (latency_ms / min(as_good) - 1) if as_good else None,
            }
        )
    return entries


def _measured(target: Target, entries: list[Entry]) -> dict[str, float]:
    """Return the measured latencies of entries on a target by key; none if its device is not at hand."""
    if target.config.table is not None or not entries:
        return {}
    run, supernet, latencies_ms = target.run, target.run.supernet(), dict[str, float]()
    try:
        for precision in dict.fromkeys(entry["precision"] for entry in entries):
            archs = {_key(entry): entry["arch"] for entry in entries if entry["precision"] == precision}
            models = {
                key: Model.of(extract(run, supernet, arch), run.family.input_shape(arch)) for key, arch in archs.items()
            }
            timings = target.measure(precision, models, "compare")
            latencies_ms |= {key: timing.median_ms for key, timing in timings.items()}
    except DeviceError as error:
        warnings.warn(f"networks of other targets are predicted on {target.name!r}: {error}", stacklevel=2)
    return latencies_ms


def mean_loss(entries: list[Entry], made_for: str, target: str) -> tuple[float, float] | None:
    """Return what the levels of one target lose on another: mean points, and mean share of latency in percent.

    Returns:
        None if no level lies within the other's front.
    """
    of_pair = [entry for entry in entries if (entry["made_for"], entry["target"]) == (made_for, target)]
    keys = ("lost_top1_percent", "slower_percent")
    values = [[entry[key] for entry in of_pair if entry[key] is not None] for key in keys]
    if not all(values):
        return None
    lost, slower = (float(np.mean(one)) for one in values)
    return lost, slower


COMPARE = Stage("compare", ("bundle",), ("profile",), _compare)
