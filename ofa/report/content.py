"""The content of a report, read from the files of a run and its targets."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ofa.core.errors import RunError
from ofa.core.files import parse_json
from ofa.cost.latency.table import LatencyTable
from ofa.pipeline.choose import objective_key
from ofa.pipeline.compare import read_comparison
from ofa.pipeline.folder import StageFolder
from ofa.pipeline.levels import Level, ReplayStep, read_records
from ofa.pipeline.run import Run
from ofa.pipeline.stage import all_stages
from ofa.pipeline.target import Target

Entry = dict[str, Any]


@dataclass(frozen=True)
class TargetContent:
    """The plain data of one target. Entries are as the stages wrote them.

    Attributes:
        facts: the target in short, by label.
        device: what the latency table says of the device.
        seconds: duration of each stage.
        samples: subnets whose accuracy was measured before the search, with `predicted_latency_ms` added.
        front: the measured front, the best in the objective first.
        checks: whole networks of the latency table, with `predicted_latency_ms` added.
        finetuned: accuracies of each level before and after it was finetuned; none if it was not.
        objective: key of the cost that the front trades for accuracy.
    """

    name: str
    facts: Mapping[str, str]
    device: Mapping[str, Any]
    seconds: Mapping[str, float]
    levels: list[Level]
    samples: list[Entry]
    front: list[Entry]
    checks: list[Entry]
    finetuned: list[Entry]
    replay: list[ReplayStep]
    objective: str


@dataclass(frozen=True)
class Content:
    """The plain data of a report.

    Attributes:
        facts: the run in short, by label.
        seconds: duration of each stage that the targets share.
        fit: metrics of the accuracy predictor.
        epochs: one entry per epoch of the training; none if nothing was trained.
        distilled: whether subnets learned from a teacher.
        targets: the finished targets, at least one.
        comparison: the levels of each target on every other one, see `read_comparison`.
    """

    name: str
    recipe: str
    facts: Mapping[str, str]
    seconds: Mapping[str, float]
    fit: Entry
    epochs: list[Entry]
    distilled: bool
    targets: list[TargetContent]
    comparison: list[Entry]


def gather(run: Run) -> Content:
    """Read the content of a run's report; RunError or TableError if a file is missing or malformed."""
    bundle = all_stages()["bundle"]
    return Content(
        name=run.recipe.name,
        recipe=run.recipe.to_yaml(),
        facts=_facts(run),
        seconds=_seconds(run),
        fit=run.read_json("predictor.json"),
        epochs=read_lines(run, "train.jsonl"),
        distilled=run.recipe.train.teacher != "none",
        targets=[_gather_target(target) for target in run.targets if target.finished(bundle)],
        comparison=read_comparison(run),
    )


def _gather_target(target: Target) -> TargetContent:
    table, front, levels = target.latency_table(), target.read_json("front.json"), target.levels
    samples = target.run.read_json("samples.json")["samples"]
    checks = [{"arch": dict(arch)} | asdict(timing) for arch, timing in table.checks.items()]
    return TargetContent(
        name=target.name,
        facts=_target_facts(target, front),
        device=dict(table.device) | {"measured": table.date[:10]},
        seconds=_seconds(target),
        levels=levels,
        samples=_with_latency(table, samples),
        front=front["front"],
        checks=_with_latency(table, checks),
        finetuned=_finetuned(target),
        replay=read_records(target.folder, ReplayStep),
        objective=objective_key(target.config.objective),
    )


def _finetuned(target: Target) -> list[Entry]:
    """Return what the stage `finetune` wrote, in the order of the levels."""
    if target.recipe.finetune is None:
        return []
    entries: list[Entry] = target.read_json("finetune.json")["levels"]
    return [next(entry for entry in entries if entry["arch"] == level.arch) for level in target.levels]


def _facts(run: Run) -> dict[str, str]:
    data, space = run.data, run.family.space
    size = f"{space.size:,}" if space.size < 1e12 else f"{float(space.size):.2g}"
    return {
        "family": run.family.name,
        "data set": f"{data.name} ({len(data.labels)} classes)",
        "images": f"{len(data.train):,} training, {len(data.validation):,} validation, {len(data.test):,} test",
        "search space": f"{size} subnets, {len(space.choices)} choices",
        "targets": str(len(run.targets)),
    }


def _target_facts(target: Target, front: Entry) -> dict[str, str]:
    config, finetune, judged = target.config, target.recipe.finetune, front.get("judged")
    limits = (", ".join(f"{name} {limit:g}" for name, limit in one.items()) for one in config.limits or ())
    predicted = target.recipe.search.over == "predictions"
    words = "predicted, {} of them measured" if predicted else "measured, {} of them asked for by the search"
    facts = {
        "precision": config.precision,
        "batch": str(config.batch),
        "limits": "; ".join(limits) or "none",
        "search": f"{front['n_evaluated']:,} subnets {words.format(front['verified'])}",
    }
    if judged is not None:
        facts["front"] = (
            f"{judged['area_percent']:.1f} % of the area that the best one known dominates, at most "
            f"{judged['gap_percent']:.2f} points below it; known by {judged['archs']} more archs beside it, in "
            f"{judged['minutes']:g} minutes"
        )
    return facts | ({} if finetune is None else {"finetuning": f"{finetune.epochs} epochs for each level"})


def _seconds(folder: StageFolder) -> dict[str, float]:
    """Return the duration of each stage that did something."""
    idle = {"report"} | ({"finetune"} if folder.recipe.finetune is None else set())
    return {name: record["seconds"] for name, record in folder.records().items() if name not in idle}


def _with_latency(table: LatencyTable, listed: list[Entry]) -> list[Entry]:
    predicted_ms = table(table.family.space.rows(entry["arch"] for entry in listed))
    return [entry | {"predicted_latency_ms": float(ms)} for entry, ms in zip(listed, predicted_ms, strict=True)]


def read_lines(run: Run, name: str) -> list[Entry]:
    """Return the objects in a file with one on each line; RunError if it cannot be read."""
    path = run.path(name)
    try:
        return [parse_json(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise RunError(f"{path} cannot be read ({error}); run `ofa train` again") from error
