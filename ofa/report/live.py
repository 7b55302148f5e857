"""The state of a run while it goes on, read from its files: what `ofa serve RUN` shows."""

import json
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from plotly import graph_objects as go

from ofa.core.errors import OfaError, RunError
from ofa.cost.counted import macs_m
from ofa.pipeline.folder import StageFolder
from ofa.pipeline.run import Run
from ofa.pipeline.stage import all_stages
from ofa.report import charts
from ofa.report.content import Entry, read_lines

_MISSING = (OSError, ValueError, KeyError, TypeError, IndexError, OfaError)
"""What a file raises that is not there yet."""


def live(run: Run) -> dict[str, Any]:
    """Return the state of a run as JSON values: `name`, `stages`, `charts` (plotly figures by name), `report`.

    A stage has `of` (the run or a target), `name`, `state` (waiting, working, stopped, finished), `seconds`, and while
    it is worked on `done`, `total`, `message`, and `silent_s`, the seconds since it last said so.
    """
    figures = {}
    for name, chart in (("training", _training), ("measured", _measured), ("fronts", _fronts)):
        with suppress(*_MISSING):
            figures[name] = json.loads(chart(run).to_json())
    stages = [_stage(holder, name) for name in all_stages() for holder in _holders(run, name)]
    return {
        "name": run.recipe.name,
        "stages": stages,
        "charts": figures,
        "report": run.path("report.html").is_file(),
    }


def _holders(run: Run, name: str) -> Iterator[StageFolder]:
    stage = all_stages()[name]
    if name != "finetune" or run.recipe.finetune is not None:
        yield from run.targets if stage.per_target else [run]


def _stage(holder: StageFolder, name: str) -> dict[str, Any]:
    record = holder.records().get(name)
    state = {"of": getattr(holder, "name", "run"), "name": name, "seconds": record["seconds"] if record else 0.0}
    about = holder.working_on()
    if holder.finished(all_stages()[name]):
        return state | {"state": "finished"}
    if record is None:
        return state | {"state": "waiting"}
    if about is None or about["stage"] != name:
        return state | {"state": "stopped"}
    told = {key: about[key] for key in ("done", "total", "message")}
    return state | told | {"state": "working", "silent_s": max(0.0, time.time() - about["time"])}


def _training(run: Run) -> go.Figure:
    return charts.training(read_lines(run, "train.jsonl"))


def _measured(run: Run) -> go.Figure:
    files = {"sampled": "samples.json"}
    for path in sorted(run.path("accuracies").glob("*.json")):
        files[f"search of {path.stem}"] = f"accuracies/{path.name}"
    return charts.measured({name: _entries(run, file) for name, file in files.items()})


def _entries(run: Run, file: str) -> list[Entry]:
    """Return the accuracies in a file, with the multiply-accumulates of their archs."""
    entries = run.read_json(file)["samples"]
    macs = macs_m(run.family)(run.family.space.rows(entry["arch"] for entry in entries))
    return [entry | {"macs_m": float(value)} for entry, value in zip(entries, macs, strict=True)]


def _fronts(run: Run) -> go.Figure:
    fronts = {}
    for target in run.targets:
        with suppress(*_MISSING):
            fronts[target.name] = target.read_json("front.json")["front"]
    if not fronts:
        raise RunError(f"no target of {run.folder} has a front yet")
    return charts.fronts(fronts)
