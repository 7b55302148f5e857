"""Options that several commands share, and the helpers behind them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ofa.cli.output import progress, table, warn
from ofa.core.errors import OfaError, RecipeError
from ofa.core.files import parse_json

if TYPE_CHECKING:  # the engine imports torch; `ofa --help` does without
    from ofa.pipeline.folder import StageFolder
    from ofa.pipeline.recipe import TargetConfig
    from ofa.pipeline.run import Run
    from ofa.supernet.family import Family


def user_path(text: str) -> Path:
    """Return a path with `~` expanded; a lone `-` is standard input."""
    return Path("/dev/stdin") if text == "-" else Path(text).expanduser()


RecipeArgument = Annotated[str, typer.Argument(metavar="RECIPE", help="Name of a shipped recipe, or a YAML file.")]
RunArgument = Annotated[
    str, typer.Argument(metavar="RUN", help="Run directory, or a recipe whose run is in runs/NAME.")
]
RunOption = Annotated[
    Path | None,
    typer.Option(
        "--run",
        "--run-dir",
        metavar="DIR",
        parser=user_path,
        help="Run directory. Default: runs/NAME. With torchrun, write --run-dir.",
    ),
]
TargetOption = Annotated[
    str | None, typer.Option("--target", metavar="NAME", help="Only this target of the run. Default: all.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def make_run(recipe: str, folder: Path | None) -> Run:
    """Create or continue the run of a recipe, in the given or the default directory."""
    from ofa.pipeline.recipe_file import load_recipe
    from ofa.pipeline.run import Run

    loaded = load_recipe(recipe)
    return Run(loaded, folder or Path("runs") / loaded.name)


def existing_run(name: str) -> Run:
    """Open the run of a directory, or the one in the default directory of a recipe."""
    from ofa.pipeline.recipe_file import load_recipe, shipped_recipes
    from ofa.pipeline.run import open_run

    folder = user_path(name)
    if not (folder / "recipe.yaml").exists() and (name in shipped_recipes() or folder.is_file()):
        folder = Path("runs") / load_recipe(name).name
    return open_run(folder)


def say_findings(run: Run) -> None:
    """Print what a user should know of the data before a training, once for all processes."""
    from ofa.core import distributed
    from ofa.data.overview import findings

    if distributed.rank() == 0:
        for finding in findings(run.data, weighed=run.recipe.train.class_weights == "balanced"):
            warn(finding)


def execute(run: Run, name: str, target: str | None = None) -> None:
    """Run one stage and show its progress; one that runs for each target, for a single target if it is given."""
    from ofa.pipeline.stage import all_stages

    stage = all_stages()[name]
    if stage.per_target:
        for one in run.targets if target is None else [run.target(target)]:
            _execute(one, name, f"{one.name} {name}" if len(run.targets) > 1 else name)
    else:
        _execute(run, name, name)


def _execute(folder: StageFolder, name: str, label: str) -> None:
    from ofa.core import distributed
    from ofa.pipeline.stage import all_stages

    with progress(label, shown=distributed.rank() == 0) as on_progress:
        folder.execute(all_stages()[name], on_progress)


def make_targets(run: Run, names: Sequence[str] | None = None) -> dict[str, OfaError]:
    """Run the unfinished stages of targets, by default of all, and return the error of each that failed, by name.

    A target that fails, such as one whose device is lost, does not keep the others; the error of the only one is
    raised.
    """
    from ofa.core import distributed
    from ofa.pipeline.stage import all_stages

    failed: dict[str, OfaError] = {}
    targets = [target for target in run.targets if names is None or target.name in names]
    for target in targets:
        try:
            with target.exclusive():
                for name, stage in all_stages().items():
                    if stage.per_target and not target.finished(stage):
                        execute(run, name, target.name)
        except OfaError as error:
            if len(targets) == 1 or distributed.world_size() > 1:  # the other processes would wait for this one
                raise
            failed[target.name] = error
            warn(f"target {target.name!r} failed, the others go on: {error}")
    if len(failed) == len(targets):
        raise next(iter(failed.values()))
    return failed


def make_report(run: Run, *, again: bool = False) -> None:
    """Run the unfinished stages that read all targets; with `again` the finished ones, too."""
    from ofa.pipeline.stage import all_stages

    for name, stage in all_stages().items():
        if stage.gathers and (again or not run.finished(stage)):
            execute(run, name)


def show_levels(run: Run, title: str) -> None:
    """Print the levels of all finished targets as a table."""
    names = ("top1_percent", "latency_ms", "size_mib", "macs_m")
    rows, n_levels = [], dict[str, int]()
    for level in run.levels:
        number = n_levels[level.target] = n_levels.get(level.target, -1) + 1
        values = (getattr(level, name) for name in names)
        rows.append((level.target, number, *values, level.precision, level.arch["resolution"]))
    columns = ("target", "level", "top-1 %", "ms", "MiB", "MACs M", "precision", "pixels")
    table(title, columns, rows)


def parse_limits(texts: Sequence[str], config: TargetConfig) -> list[dict[str, float]]:
    """Parse options such as `latency_ms=2,size_mib=1`, each a set of limits; RecipeError if one is malformed."""
    from ofa.core.config import validate
    from ofa.pipeline.recipe import TargetConfig

    limits = []
    for text in texts:
        pairs = [part.partition("=") for part in text.split(",")]
        if not all(equals for _, equals, _ in pairs):
            raise RecipeError(f"--limit {text!r} is not COST=VALUE, such as latency_ms=2,size_mib=1")
        try:
            limits.append({cost.strip(): float(value) for cost, _, value in pairs})
        except ValueError as error:
            raise RecipeError(f"--limit {text!r}: {error}; give a number, such as latency_ms=2") from error
    validate(TargetConfig, config.model_dump() | {"limits": limits}, "--limit")
    return limits


def json_object(option: str, text: str | None) -> dict[str, Any]:
    """Parse an option's text as a JSON object, empty if it was not given; RecipeError if it is something else."""
    if text is None:
        return {}
    advice = 'give an object such as {"threads": 2}'
    try:
        value = parse_json(text)
    except ValueError as error:
        raise RecipeError(f"{option} {text!r} is not JSON ({error}); {advice}") from error
    if not isinstance(value, dict):
        raise RecipeError(f"{option} {text!r} is not a JSON object; {advice}")
    return value


def family_of(name: str, options: str | None) -> Family:
    """Create a family from its name and the text of `--options`, and check it."""
    from ofa.supernet.registry import check_family, create_family

    family = create_family(name, **json_object("--options", options))
    check_family(family)
    return family
