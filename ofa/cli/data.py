"""`ofa data`: what a recipe's data set holds."""

from pathlib import Path
from typing import Annotated

import typer

from ofa.cli.options import JsonOption, RecipeArgument, user_path
from ofa.cli.output import console, emit, table, warn

_SHOWN = 30
"""Classes that are listed."""


def data(
    recipe: RecipeArgument,
    sheet: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", parser=user_path, help="PNG file for the sample pictures. Default: NAME-data.png here."
        ),
    ] = None,
    rescan: Annotated[
        bool, typer.Option("--rescan", help="Forget what was found in large folders, and look at all files again.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show what a recipe's data set holds: images by class and split, sizes, findings, and a sheet of samples."""
    from ofa.core.files import replacing
    from ofa.data.index import forget
    from ofa.data.load import load_data
    from ofa.data.overview import overview
    from ofa.data.sheet import sheet as draw
    from ofa.pipeline.recipe_file import load_recipe
    from ofa.pipeline.run import family_for

    loaded = load_recipe(recipe)
    if rescan:
        forget()
    images = load_data(loaded.data)
    shown = overview(images, weighed=loaded.train.class_weights == "balanced")
    resolution = max(family_for(loaded, images).resolutions)
    path = sheet or Path(f"{loaded.name}-data.png")
    with replacing(path) as temporary:
        draw(images, loaded.data.augment, resolution, loaded.seed).save(temporary, "png")
    shown["sheet"] = str(path)

    def show() -> None:
        rows = [(name, *counts.values()) for name, counts in list(shown["classes"].items())[:_SHOWN]]
        if len(shown["classes"]) > _SHOWN:
            rows.append((f"... ({len(shown['classes'])} in all)", "", "", ""))
        rows.append(("all", *shown["images"].values()))
        table(f"{shown['name']}: images by class", ("class", *shown["images"]), rows)
        for side in ("height", "width"):
            low, middle, high = shown[side]
            console.print(f"{side}: {low} to {high} pixels, median {middle}", highlight=False)
        for finding in shown["findings"]:
            warn(finding)
        console.print(shown["sheet"], highlight=False, soft_wrap=True)

    emit(shown, as_json, show)
