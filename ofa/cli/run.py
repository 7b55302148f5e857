"""`ofa run`: all stages of a recipe."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ofa.cli.options import JsonOption, RecipeArgument, RunOption, execute, make_run
from ofa.cli.output import console, emit, table
from ofa.core.errors import RunError

if TYPE_CHECKING:
    from ofa.pipeline.run import Run


def run(
    recipe: RecipeArgument,
    run_dir: RunOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume an interrupted run.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Run all stages: train, sample, fit, profile, search, export, bundle, report."""
    from ofa.pipeline.stage import all_stages

    made = make_run(recipe, run_dir)
    if made.records() and not resume:
        raise RunError(f"{made.folder} already holds a run; add --resume to continue it, or give another --run")
    with made.exclusive():
        for stage in all_stages().values():
            made.check_unchanged(stage)
        made.check_inputs()
        for name, stage in all_stages().items():
            if not made.finished(stage):
                execute(made, name)
    show_summary(made, as_json)


def show_summary(made: Run, as_json: bool) -> None:
    """Print `summary.json`."""
    summary = made.read_json("summary.json")

    def show() -> None:
        names = ("top1_percent", "latency_ms", "predicted_latency_ms", "macs_m", "params_m")
        levels = enumerate(made.levels)
        rows = [(i, *(getattr(level, name) for name in names), level.arch["resolution"]) for i, level in levels]
        columns = ("level", "test top-1 %", "latency ms", "predicted", "MACs M", "params M", "pixels")
        table(f"{made.recipe.name}: {len(rows)} levels out of {summary['space_size']:.3g} archs", columns, rows)
        for name in ("report.html", "bundle"):
            console.print(str(made.path(name)), highlight=False, soft_wrap=True)

    emit(summary, as_json, show)


def add_to(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command()(run)
