"""The content of a report, read from the files of a run."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ofa.core.errors import RunError
from ofa.cost.latency.table import LatencyTable
from ofa.pipeline.levels import Level, ReplayStep, read_records
from ofa.pipeline.run import Run

Entry = dict[str, Any]


@dataclass(frozen=True)
class Content:
    """The plain data of a report. Entries are as the stages wrote them.

    Attributes:
        facts: the run in short, by label.
        seconds: duration of each stage.
        samples: subnets whose accuracy was measured, with `predicted_latency_ms` added.
        front: the measured front, the fastest first.
        checks: whole networks of the latency table, with `predicted_latency_ms` added.
        fit: metrics of the accuracy predictor.
        epochs: one entry per epoch of the training; none if nothing was trained.
        distilled: whether subnets learned from a teacher.
    """

    name: str
    recipe: str
    facts: Mapping[str, str]
    device: Mapping[str, Any]
    seconds: Mapping[str, float]
    levels: list[Level]
    samples: list[Entry]
    front: list[Entry]
    checks: list[Entry]
    fit: Entry
    epochs: list[Entry]
    distilled: bool
    replay: list[ReplayStep]


def gather(run: Run) -> Content:
    """Read the content of a run's report; RunError or TableError if a file is missing or malformed."""
    table, front = run.latency_table(), run.read_json("front.json")
    return Content(
        name=run.recipe.name,
        recipe=run.recipe.to_yaml(),
        facts=_facts(run, front),
        device=dict(table.device) | {"measured": table.date[:10]},
        seconds={name: record["seconds"] for name, record in run.records().items() if name != "report"},
        levels=run.levels,
        samples=_with_latency(table, run.read_json("samples.json")["samples"]),
        front=front["front"],
        checks=_with_latency(table, [{"arch": dict(arch)} | asdict(timing) for arch, timing in table.checks.items()]),
        fit=run.read_json("predictor.json"),
        epochs=_read_lines(run, "train.jsonl"),
        distilled=run.recipe.train.teacher != "none",
        replay=read_records(run.folder, ReplayStep),
    )


def _facts(run: Run, front: Entry) -> dict[str, str]:
    data, space = run.data, run.family.space
    size = f"{space.size:,}" if space.size < 1e12 else f"{float(space.size):.2g}"
    return {
        "family": run.family.name,
        "data set": f"{data.name} ({len(data.labels)} classes)",
        "images": f"{len(data.train):,} training, {len(data.validation):,} validation, {len(data.test):,} test",
        "search space": f"{size} subnets, {len(space.choices)} choices",
        "search": f"{front['n_evaluated']:,} subnets predicted, {front['verified']} of them measured",
    }


def _with_latency(table: LatencyTable, listed: list[Entry]) -> list[Entry]:
    predicted_ms = table(table.family.space.rows(entry["arch"] for entry in listed))
    return [entry | {"predicted_latency_ms": float(ms)} for entry, ms in zip(listed, predicted_ms, strict=True)]


def _read_lines(run: Run, name: str) -> list[Entry]:
    path = run.path(name)
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read ({error}); run `ofa train` again") from error
