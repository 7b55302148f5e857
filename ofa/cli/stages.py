"""`ofa run`, which runs all stages of a recipe, and the commands that run a single stage."""

import math
from typing import Annotated

import typer

from ofa.cli.options import JsonOption, RecipeArgument, RunOption, execute, make_run
from ofa.cli.output import console, emit, table
from ofa.core.errors import RunError

_FRONT_KEYS = (
    "predicted_latency_ms",
    "predicted_top1_percent",
    "top1_percent",
    "estimated_top1_percent",
    "macs_m",
    "params_m",
)


def run(
    recipe: RecipeArgument,
    run_dir: RunOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="Resume an interrupted run.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Run all stages: train, sample, fit, profile, search, export, bundle, report."""
    from ofa.pipeline.stage import all_stages

    run = make_run(recipe, run_dir)
    if run.records() and not resume:
        raise RunError(f"{run.folder} already holds a run; add --resume to continue it, or give another --run")
    with run.exclusive():
        for stage in all_stages().values():
            run.check_unchanged(stage)
        run.check_inputs()
        for name, stage in all_stages().items():
            if not run.finished(stage):
                execute(run, name)
    summary = run.read_json("summary.json")

    def show() -> None:
        names = ("top1_percent", "latency_ms", "predicted_latency_ms", "macs_m", "params_m")
        levels = enumerate(run.levels)
        rows = [(i, *(getattr(level, name) for name in names), level.arch["resolution"]) for i, level in levels]
        columns = ("level", "test top-1 %", "latency ms", "predicted", "MACs M", "params M", "pixels")
        table(f"{run.recipe.name}: {len(rows)} levels out of {summary['space_size']:.3g} archs", columns, rows)
        for name in ("report.html", "bundle"):
            console.print(str(run.path(name)), highlight=False, soft_wrap=True)

    emit(summary, as_json, show)


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
        from ofa.pipeline.search import best_under

        entries = [best_under(run, limit_ms)]
    keys = [key for key in _FRONT_KEYS if key in entries[0]]
    rows = [[*(entry[key] for key in keys), entry["arch"]["resolution"]] for entry in entries]
    emit(entries, as_json, lambda: table("Pareto front", [*keys, "resolution"], rows))


def export(recipe: RecipeArgument, run_dir: RunOption = None) -> None:
    """Export the levels to ONNX, compared with PyTorch on real images."""
    execute(make_run(recipe, run_dir), "export")


def report(recipe: RecipeArgument, run_dir: RunOption = None) -> None:
    """Write summary.json and report.html."""
    run = make_run(recipe, run_dir)
    execute(run, "report")
    console.print(str(run.path("report.html")), highlight=False)
