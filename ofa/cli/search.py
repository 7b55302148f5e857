"""`ofa search`: the Pareto front of a run, or the best arch under a latency."""

from __future__ import annotations

import math
from typing import Annotated

import typer

from ofa.cli.options import JsonOption, RecipeArgument, RunOption, execute, make_run
from ofa.cli.output import emit, table
from ofa.core.errors import RunError

_KEYS = (
    "predicted_latency_ms",
    "predicted_top1_percent",
    "top1_percent",
    "estimated_top1_percent",
    "macs_m",
    "params_m",
)


def search(
    recipe: RecipeArgument,
    run_dir: RunOption = None,
    limit_ms: Annotated[
        float | None, typer.Option("--limit-ms", help="Only show the best arch under this predicted latency.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Search the Pareto front of accuracy and latency, and choose the levels to deploy."""
    if limit_ms is not None and not 0 < limit_ms < math.inf:
        raise RunError(f"--limit-ms {limit_ms:g} is not allowed; give milliseconds above 0")
    run = make_run(recipe, run_dir)
    if limit_ms is None:
        execute(run, "search")
        entries = run.read_json("front.json")["front"]
    else:
        from ofa.pipeline.stages.search import best_under

        entries = [best_under(run, limit_ms)]
    keys = [key for key in _KEYS if key in entries[0]]
    rows = [[*(entry[key] for key in keys), entry["arch"]["resolution"]] for entry in entries]
    emit(entries, as_json, lambda: table("Pareto front", [*keys, "resolution"], rows))


def add_to(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command()(search)
