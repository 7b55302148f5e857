"""`ofa run`, which runs all stages of a recipe, and the commands that run a single stage."""

from typing import Annotated

import typer

from ofa.cli.options import (
    JsonOption,
    RecipeArgument,
    RunOption,
    TargetOption,
    execute,
    make_report,
    make_run,
    make_targets,
    parse_limits,
    say_findings,
    show_levels,
)
from ofa.cli.output import console, emit, table, warn
from ofa.core.errors import RunError

_FRONT_KEYS = (
    "precision",
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
    """Train, then for each target: profile, search, export, bundle; at last write the report."""
    from ofa.pipeline.stage import all_stages

    run = make_run(recipe, run_dir)
    if run.records() and not resume:
        raise RunError(f"{run.folder} already holds a run; add --resume to continue it, or give another --run")
    shared = [stage for stage in all_stages().values() if not stage.per_target and not stage.gathers]
    with run.exclusive():
        for stage in shared:
            run.check_unchanged(stage)
        for name, error in run.check_inputs().items():
            warn(f"target {name!r} cannot be made now, the others can: {error}")
        if not run.finished(shared[0]):
            say_findings(run)
        for stage in shared:
            if not run.finished(stage):
                execute(run, stage.name)
    failed = make_targets(run)
    make_report(run)
    summary = run.read_json("summary.json")

    def show() -> None:
        show_levels(run, f"{run.recipe.name}: levels out of {summary['space_size']:.3g} archs")
        bundles = [target.path("bundle") for target in run.targets if target.name not in failed]
        for path in (run.path("report.html"), *bundles):
            console.print(str(path), highlight=False, soft_wrap=True)

    emit(summary, as_json, show)
    if failed:
        names = ", ".join(failed)
        raise RunError(f"not made, see above: {names}; mend what is named there and continue with --resume")


def train(recipe: RecipeArgument, run_dir: RunOption = None) -> None:
    """Train the supernet; resumes from the newest checkpoint."""
    from ofa.pipeline.stage import all_stages

    run = make_run(recipe, run_dir)
    with run.exclusive():
        if not run.finished(all_stages()["train"]):
            run.check_inputs()
            say_findings(run)
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
    target: TargetOption = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(
            "--limit",
            metavar="COST=VALUE,...",
            help="Only show the best arch within predicted limits, such as latency_ms=2,size_mib=1.",
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Search the Pareto front of accuracy and cost of each target, and choose the levels to deploy."""
    run = make_run(recipe, run_dir)
    if limit:
        from ofa.pipeline.search import best_under

        searched = run.target(target)
        entries = {searched.name: [best_under(searched, limits) for limits in parse_limits(limit, searched.config)]}
    else:
        execute(run, "search", target)
        names = [one.name for one in run.targets if target in (None, one.name)]
        entries = {name: run.target(name).read_json("front.json")["front"] for name in names}

    def show() -> None:
        for name, front in entries.items():
            keys = [key for key in _FRONT_KEYS if key in front[0]]
            rows = [[*(entry[key] for key in keys), entry["arch"]["resolution"]] for entry in front]
            table(f"Pareto front of {name}", [*keys, "resolution"], rows)

    emit([{"target": name} | entry for name, front in entries.items() for entry in front], as_json, show)


def finetune(recipe: RecipeArgument, run_dir: RunOption = None, target: TargetOption = None) -> None:
    """Train the levels of each target on, each alone, as the recipe's section `finetune` says."""
    execute(make_run(recipe, run_dir), "finetune", target)


def export(recipe: RecipeArgument, run_dir: RunOption = None, target: TargetOption = None) -> None:
    """Write the levels of each target as files, compared with PyTorch on real images."""
    execute(make_run(recipe, run_dir), "export", target)


def report(recipe: RecipeArgument, run_dir: RunOption = None) -> None:
    """Compare the targets, and write summary.json and report.html."""
    run = make_run(recipe, run_dir)
    make_report(run, again=True)
    console.print(str(run.path("report.html")), highlight=False)
