"""`ofa specialize` and `ofa targets`: more targets for a run that is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ofa.cli.options import (
    JsonOption,
    RunArgument,
    existing_run,
    json_object,
    make_report,
    make_targets,
    parse_limits,
    show_levels,
    user_path,
)
from ofa.cli.output import console, emit, table


def specialize(
    run_dir: RunArgument,
    name: Annotated[str, typer.Option(metavar="NAME", help="Name of the new target.")],
    device: Annotated[str, typer.Option(metavar="NAME", help="A device that `ofa devices` lists.")] = "ort-cpu",
    device_options: Annotated[str, typer.Option(help="Device options as JSON: '{\"threads\": 2}'.")] = "{}",
    precision: Annotated[str, typer.Option(help="float32, float16, int8_dynamic, int8_static or auto.")] = "float32",
    batch: Annotated[int, typer.Option(help="Images in one run.")] = 1,
    limit: Annotated[
        list[str] | None,
        typer.Option(
            "--limit",
            metavar="COST=VALUE,...",
            help="A level within these limits, such as latency_ms=5,size_mib=2; may be repeated.",
        ),
    ] = None,
    levels: Annotated[int, typer.Option(help="Number of levels, without --limit.")] = 4,
    table_file: Annotated[
        Path | None,
        typer.Option(
            "--table", metavar="FILE", parser=user_path, help="Latency table of another machine; measures nothing."
        ),
    ] = None,
    settings: Annotated[
        str, typer.Option("--settings", help='More keys of a target as JSON: \'{"objective": "macs_m"}\'.')
    ] = "{}",
    as_json: JsonOption = False,
) -> None:
    """Make the levels of one more target from a trained run, without training and without a change of the recipe."""
    from ofa.core.config import validate
    from ofa.pipeline.recipe import TargetConfig

    content: dict[str, Any] = {
        "name": name,
        "device": device,
        "options": json_object("--device-options", device_options),
        "precision": precision,
        "batch": batch,
        "levels": levels,
        "table": table_file,
    }
    config = validate(TargetConfig, content | json_object("--settings", settings), "target")
    if limit:
        config = config.model_copy(update={"limits": parse_limits(limit, config)})
    run = existing_run(run_dir)
    target = run.new_target(config)
    with target.exclusive():
        target.begin()
    make_targets(run, [name])
    make_report(run)
    result = run.read_json("summary.json")["targets"][name]
    emit(result, as_json, lambda: show_levels(run, f"levels of {run.folder}"))


def targets(
    run_dir: RunArgument,
    remove: Annotated[str | None, typer.Option(metavar="NAME", help="Remove this target's files.")] = None,
    as_json: JsonOption = False,
) -> None:
    """List the targets of a run, or remove one."""
    run = existing_run(run_dir)
    if remove is not None:
        run.remove_target(remove)
    entries = [
        target.config.model_dump(mode="json")
        | {"finished": target.finished_stages(), "in_recipe": target.config in run.recipe.targets}
        for target in run.targets
    ]

    def show() -> None:
        rows = [
            (entry["name"], entry["device"], entry["precision"], entry["batch"], ", ".join(entry["finished"]) or "none")
            for entry in entries
        ]
        table(f"targets of {run.folder}", ("target", "device", "precision", "batch", "finished stages"), rows)
        if remove is not None:
            console.print(f"removed {remove}", highlight=False, soft_wrap=True)

    emit(entries, as_json, show)
