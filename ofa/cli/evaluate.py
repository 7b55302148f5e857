"""`ofa evaluate`: accuracy and loss of any subnets of a trained run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ofa.cli.output import emit, progress, table
from ofa.cli.run import JsonOption

if TYPE_CHECKING:
    from ofa.pipeline.run import Run

STANDARD_INPUT = Path("/dev/stdin")


def evaluate(
    run_dir: Annotated[
        str, typer.Argument(metavar="RUN", help="Run directory, or a recipe whose run is in runs/NAME.")
    ],
    archs_file: Annotated[
        Path | None,
        typer.Option(
            "--archs",
            metavar="FILE",
            help="JSON list of archs, or of objects with an `arch` key; - reads standard input. "
            "Default: the largest and the smallest.",
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="Images to judge on: train, validation or test.")] = "validation",
    images: Annotated[int | None, typer.Option(min=1, help="Only so many of them. Default: all.")] = None,
    calibration_images: Annotated[
        int | None, typer.Option(min=2, help="Training images for BatchNorm. Default: the recipe's.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure top-1, top-5 and loss of any subnets of a trained run, BatchNorm re-estimated for each."""
    from ofa.pipeline import evaluate as pipeline
    from ofa.space.arch_file import read_archs

    run = _open(run_dir)
    space = run.family.space
    if archs_file is None:
        archs, names = [space.largest, space.smallest], ["largest", "smallest"]
    else:
        archs = read_archs(STANDARD_INPUT if archs_file == Path("-") else archs_file, space)
        names = [str(i) for i in range(len(archs))]
    with progress("evaluate") as on_progress:
        found = pipeline.evaluate(run, archs, split, images, calibration_images, on_progress)

    def show() -> None:
        shown = {"top1_percent": "top-1 %", "top5_percent": "top-5 %", "loss": "loss"}
        shown |= {"macs_m": "MACs M", "params_m": "params M"}
        keys = [key for key in shown if key in found["archs"][0]]
        rows = [
            (name, *(entry[key] for key in keys), entry["arch"]["resolution"])
            for name, entry in zip(names, found["archs"], strict=True)
        ]
        table(f"{found['images']} {split} images", ("arch", *(shown[key] for key in keys), "pixels"), rows)

    emit(found, as_json, show)


def _open(run_dir: str) -> Run:
    """The run of a directory, or the one in the usual directory of a recipe; it is there already."""
    from ofa.pipeline.recipe import load_recipe, shipped
    from ofa.pipeline.run import Run

    folder = Path(run_dir)
    if not (folder / "recipe.yaml").exists() and (run_dir in shipped() or folder.is_file()):
        folder = Path("runs") / load_recipe(run_dir).name
    return Run.open(folder)


def add_to(app: typer.Typer) -> None:
    """Adds the command of this file."""
    app.command("evaluate")(evaluate)
