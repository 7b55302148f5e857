"""`ofa run`, all stages of a recipe, and the commands of single stages."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ofa.cli.output import console, emit, progress, table
from ofa.core.errors import RunError

if TYPE_CHECKING:  # the engine brings torch along; `ofa --help` does without
    from ofa.pipeline.run import Run

RecipeArgument = Annotated[
    str, typer.Argument(metavar="RECIPE", help="Name of a shipped recipe, or path of a YAML file.")
]
RunOption = Annotated[
    Path | None,
    typer.Option(
        "--run",
        "--run-dir",
        metavar="DIR",
        help="Run directory. Default: runs/NAME. torchrun lets only --run-dir through.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def open_run(recipe: str, folder: Path | None) -> Run:
    """The run of a recipe, in the given or the usual directory."""
    from ofa.pipeline.recipe import load_recipe
    from ofa.pipeline.run import Run

    loaded = load_recipe(recipe)
    return Run(loaded, folder or Path("runs") / loaded.name)


def execute(run: Run, name: str) -> None:
    """Runs one stage and shows its progress."""
    from ofa.core import distributed
    from ofa.pipeline.run import stages

    with progress(name, shown=distributed.rank() == 0) as on_progress:
        run.execute(stages()[name], on_progress)


def run_all(
    recipe: RecipeArgument,
    run_dir: RunOption = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with a run that was stopped.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Run all stages: train, sample, fit, profile, search, export, bundle, report."""
    from ofa.pipeline.run import stages

    run = open_run(recipe, run_dir)
    if run.records() and not resume:
        raise RunError(f"{run.folder} holds a run already; add --resume to go on with it, or give another --run")
    for stage in stages().values():
        run.check_unchanged(stage)
    run.check_inputs()
    for name, stage in stages().items():
        if not run.finished(stage):
            execute(run, name)
    show_summary(run, as_json)


def show_summary(run: Run, as_json: bool) -> None:
    """Prints `summary.json`."""
    summary = run.read_json("summary.json")

    def show() -> None:
        keys = ("top1_percent", "latency_ms", "predicted_latency_ms", "macs_m", "params_m")
        rows = [
            (i, *(level[key] for key in keys), level["arch"]["resolution"]) for i, level in enumerate(summary["levels"])
        ]
        columns = ("level", "test top-1 %", "latency ms", "predicted", "MACs M", "params M", "pixels")
        table(f"{run.recipe.name}: {len(rows)} levels out of {summary['space_size']:.3g} archs", columns, rows)
        for name in ("report.html", "bundle"):
            console.print(str(run.path(name)), highlight=False, soft_wrap=True)

    emit(summary, as_json, show)


def train(recipe: RecipeArgument, run_dir: RunOption = None) -> None:
    """Train the supernet; goes on from the newest checkpoint if there is one."""
    execute(open_run(recipe, run_dir), "train")


def sample(recipe: RecipeArgument, run_dir: RunOption = None) -> None:
    """Measure the validation accuracy of random subnets."""
    execute(open_run(recipe, run_dir), "sample")


def fit(recipe: RecipeArgument, run_dir: RunOption = None, as_json: JsonOption = False) -> None:
    """Fit the accuracy predictor to the sampled subnets."""
    run = open_run(recipe, run_dir)
    execute(run, "fit")
    judged = {key: value for key, value in run.read_json("predictor.json").items() if not isinstance(value, list)}
    emit(judged, as_json, lambda: table("accuracy predictor", tuple(judged), [tuple(judged.values())]))


def search(
    recipe: RecipeArgument,
    run_dir: RunOption = None,
    limit_ms: Annotated[
        float | None, typer.Option("--limit-ms", help="Only show the best arch under this predicted latency.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Search the front of accuracy and latency, and pick the levels to deploy."""
    run = open_run(recipe, run_dir)
    if limit_ms is None:
        execute(run, "search")
        entries = run.read_json("front.json")["front"]
    else:
        entries = [_best_under(run, limit_ms)]
    accuracies = [f"{kind}top1_percent" for kind in ("predicted_", "", "estimated_")]
    keys = ["predicted_latency_ms", *accuracies, "macs_m", "params_m"]
    keys = [key for key in keys if key in entries[0]]
    rows = [[*(entry[key] for key in keys), entry["arch"]["resolution"]] for entry in entries]
    emit(entries, as_json, lambda: table("front", [*keys, "resolution"], rows))


def _best_under(run: Run, limit_ms: float) -> dict[str, object]:
    from ofa.pipeline.stages import predicted_front, read_predictor, read_samples, read_table

    if limit_ms <= 0:
        raise RunError(f"--limit-ms {limit_ms:g} must be above 0")
    start = run.family.space.rows(read_samples(run))
    front = predicted_front(run, read_table(run), read_predictor(run), start, run.rng("search"), limit_ms)
    latency_ms, top1_percent = front.values[-1]
    arch = dict(run.family.space.decode(front.rows[-1]))
    return {"arch": arch, "predicted_latency_ms": latency_ms, "predicted_top1_percent": top1_percent}


def export(recipe: RecipeArgument, run_dir: RunOption = None) -> None:
    """Export the levels to ONNX, checked against PyTorch on real images."""
    execute(open_run(recipe, run_dir), "export")


def report(recipe: RecipeArgument, run_dir: RunOption = None) -> None:
    """Write summary.json and report.html."""
    run = open_run(recipe, run_dir)
    execute(run, "report")
    console.print(str(run.path("report.html")), highlight=False)


def add_to(app: typer.Typer) -> None:
    """Adds the commands of this file."""
    app.command("run")(run_all)
    for command in (train, sample, fit, search, export, report):
        app.command(command.__name__)(command)
