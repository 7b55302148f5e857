"""The commands that run a single stage: train, sample, fit, export, report."""

from __future__ import annotations

import typer

from ofa.cli.options import JsonOption, RecipeArgument, RunOption, execute, make_run
from ofa.cli.output import console, emit, table


def train(recipe: RecipeArgument, run_dir: RunOption = None) -> None:
    """Train the supernet; resumes from the newest checkpoint."""
    from ofa.pipeline.stage import all_stages

    run = make_run(recipe, run_dir)
    with run.exclusive():
        if not run.finished(all_stages()["train"]):
            run.check_inputs()
        execute(run, "train")


def sample(recipe: RecipeArgument, run_dir: RunOption = None) -> None:
    """Measure the validation accuracy of random subnets."""
    execute(make_run(recipe, run_dir), "sample")


def fit(recipe: RecipeArgument, run_dir: RunOption = None, as_json: JsonOption = False) -> None:
    """Fit the accuracy predictor to the sampled subnets."""
    run = make_run(recipe, run_dir)
    execute(run, "fit")
    metrics = {key: value for key, value in run.read_json("predictor.json").items() if not isinstance(value, list)}
    emit(metrics, as_json, lambda: table("accuracy predictor", tuple(metrics), [tuple(metrics.values())]))


def export(recipe: RecipeArgument, run_dir: RunOption = None) -> None:
    """Export the levels to ONNX, compared with PyTorch on real images."""
    execute(make_run(recipe, run_dir), "export")


def report(recipe: RecipeArgument, run_dir: RunOption = None) -> None:
    """Write summary.json and report.html."""
    run = make_run(recipe, run_dir)
    execute(run, "report")
    console.print(str(run.path("report.html")), highlight=False)


def add_to(app: typer.Typer) -> None:
    """Add the commands of this file."""
    for command in (train, sample, fit, export, report):
        app.command()(command)
