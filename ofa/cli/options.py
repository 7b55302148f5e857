"""Options that several commands share, and the helpers behind them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ofa.cli.output import progress
from ofa.core.errors import RecipeError

if TYPE_CHECKING:  # the engine imports torch; `ofa --help` does without
    from ofa.pipeline.run import Run
    from ofa.supernet.family import Family


def user_path(text: str) -> Path:
    """Return a path with `~` expanded; a lone `-` is standard input."""
    return Path("/dev/stdin") if text == "-" else Path(text).expanduser()


RecipeArgument = Annotated[str, typer.Argument(metavar="RECIPE", help="Name of a shipped recipe, or a YAML file.")]
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


def execute(run: Run, name: str) -> None:
    """Run one stage and show its progress."""
    from ofa.core import distributed
    from ofa.pipeline.stage import all_stages

    with progress(name, shown=distributed.rank() == 0) as on_progress:
        run.execute(all_stages()[name], on_progress)


def json_object(option: str, text: str) -> dict[str, Any]:
    """Parse an option's text as a JSON object; RecipeError if it is something else."""
    advice = 'give an object such as {"threads": 2}'
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"{option} {text!r} is not JSON ({error}); {advice}") from error
    if not isinstance(value, dict):
        raise RecipeError(f"{option} {text!r} is not a JSON object; {advice}")
    return value


def family_of(name: str, options: str) -> Family:
    """Create a family from its name and the text of `--options`, and check it."""
    from ofa.supernet.registry import check_family, create_family

    family = create_family(name, **json_object("--options", options))
    check_family(family)
    return family
