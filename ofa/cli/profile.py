"""`ofa profile`: the latency table of a recipe's device, or of any family on any device."""

import math
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from ofa.cli.options import JsonOption, RunOption, TargetOption, execute, family_of, json_object, make_run, user_path
from ofa.cli.output import emit, progress, table


def profile(
    recipe: Annotated[
        str,
        typer.Argument(metavar="RECIPE|FAMILY", help="A recipe; with --device, a family by name or path."),
    ],
    run_dir: RunOption = None,
    target: TargetOption = None,
    device: Annotated[
        str | None, typer.Option(metavar="NAME", help="Measure a family on this device, without a run.")
    ] = None,
    options: Annotated[str, typer.Option(help="Family options as JSON: '{\"resolutions\": [96, 128]}'.")] = "{}",
    device_options: Annotated[str, typer.Option(help="Device options as JSON: '{\"threads\": 2}'.")] = "{}",
    measuring: Annotated[str, typer.Option(help="Keys of a recipe's section `profile` as JSON.")] = "{}",
    minutes: Annotated[
        float | None,
        typer.Option(help="Time for the whole table: what tells most is measured first. More go on from there."),
    ] = None,
    like: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="TABLE",
            parser=user_path,
            help="A table of another device, so that only networks are measured here; may be given several times.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", parser=user_path, help="File of the table. Default: FAMILY-DEVICE.json."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a latency table, or resume an interrupted measurement."""
    if device is None:
        execute(make_run(recipe, run_dir), "profile", target)
        return
    import numpy as np

    from ofa.core.config import validate
    from ofa.cost.latency.profile import TableConfig
    from ofa.cost.latency.profile import profile as measure_table
    from ofa.cost.latency.table import LatencyTable
    from ofa.devices.registry import create_device

    family = family_of(recipe, options)
    settings = json_object("--measuring", measuring) | ({} if minutes is None else {"minutes": minutes})
    config = validate(TableConfig, settings, "--measuring")
    path = out or Path(f"{family.name}-{device}.json")
    with progress("profile") as report:
        measured = measure_table(
            family,
            create_device(device, **json_object("--device-options", device_options)),
            np.random.default_rng(0),
            like=[LatencyTable.load(table, family) for table in like or ()],
            config=config,
            samples_path=path.with_suffix(".samples.json"),
            on_progress=lambda done, total: report(done, total, "latencies"),
        )
    measured.save(path)
    counts = {"table": str(path), "rows": len(measured.rows), "networks": len(measured.networks)}
    metrics = {key: value if math.isfinite(value) else None for key, value in asdict(measured.evaluate()).items()}
    result = counts | metrics
    emit(result, as_json, lambda: table("latency table", tuple(result), [tuple(result.values())]))
