"""`ofa evaluate`: accuracy and loss of any subnets of a trained run."""

from pathlib import Path
from typing import Annotated

import typer

from ofa.cli.options import JsonOption, RunArgument, existing_run, user_path
from ofa.cli.output import emit, progress, table

_COLUMNS = {
    "top1_percent": "top-1 %",
    "top5_percent": "top-5 %",
    "loss": "loss",
    "macs_m": "MACs M",
    "params_m": "params M",
}


def evaluate(
    run_dir: RunArgument,
    archs_file: Annotated[
        Path | None,
        typer.Option(
            "--archs",
            metavar="FILE",
            parser=user_path,
            help="JSON list of archs, or of objects with an `arch` key; - reads standard input. "
            "Default: the largest and the smallest.",
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="Images to evaluate on: train, validation or test.")] = "validation",
    images: Annotated[int | None, typer.Option(min=1, help="Number of images, at most. Default: all.")] = None,
    calibration_images: Annotated[
        int | None, typer.Option(min=2, help="Training images for BatchNorm. Default: the recipe's.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure top-1, top-5 and loss of any subnets of a trained run, BatchNorm re-estimated for each."""
    from ofa.pipeline import evaluate as pipeline
    from ofa.space.arch_file import read_archs

    run = existing_run(run_dir)
    space = run.family.space
    if archs_file is None:
        archs, names = [space.largest, space.smallest], ["largest", "smallest"]
    else:
        archs = read_archs(archs_file, space)
        names = [str(i) for i in range(len(archs))]
    with progress("evaluate") as on_progress:
        result = pipeline.evaluate(
            run, archs, split, max_images=images, calibration_images=calibration_images, progress=on_progress
        )

    def show() -> None:
        keys = [key for key in _COLUMNS if key in result["archs"][0]]
        rows = [
            (name, *(entry[key] for key in keys), entry["arch"]["resolution"])
            for name, entry in zip(names, result["archs"], strict=True)
        ]
        columns = ("arch", *(_COLUMNS[key] for key in keys), "pixels")
        table(f"{result['images']} {split} images", columns, rows)

    emit(result, as_json, show)
