"""`ofa profile`: the latency table of a recipe's device, or of any family on any device."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ofa.cli.options import JsonOption, RunOption, execute, json_object, make_run
from ofa.cli.output import emit, progress, table


def profile(
    target: Annotated[
        str,
        typer.Argument(metavar="RECIPE|FAMILY", help="A recipe; or with --device a family, by name or Python file."),
    ],
    run_dir: RunOption = None,
    device: Annotated[str | None, typer.Option(help="Measure a family on this device, without a run.")] = None,
    options: Annotated[str, typer.Option(help="Of the family, as JSON: '{\"resolutions\": [96, 128]}'.")] = "{}",
    device_options: Annotated[str, typer.Option(help="Of the device, as JSON: '{\"threads\": 2}'.")] = "{}",
    measuring: Annotated[str, typer.Option(help="What a recipe's section profile may have, as JSON.")] = "{}",
    like: Annotated[
        Path | None, typer.Option(metavar="TABLE", help="Take the blocks of another device's table; measure networks.")
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="The table. Default: FAMILY-DEVICE.json.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure a latency table; one that was stopped is gone on with."""
    if device is None:
        execute(make_run(target, run_dir), "profile")
        return
    import numpy as np

    from ofa.cost.latency import profile as latency
    from ofa.cost.latency.table import LatencyTable
    from ofa.devices.registry import create_device as make_device
    from ofa.pipeline.recipe_file import validate
    from ofa.supernet.registry import create_family as make_family

    family = make_family(target, **json_object("--options", options))
    found = make_device(device, **json_object("--device-options", device_options))
    config = validate(latency.TableConfig, json_object("--measuring", measuring), "--measuring")
    path = out or Path(f"{family.name}-{device}.json")
    with progress("profile") as on_progress:

        def told(done: int, total: int) -> None:
            on_progress(done, total, "latencies")

        rest = (found, np.random.default_rng(0), config, path.with_suffix(".samples.json"), told)
        made = latency.profile(family, *rest) if like is None else latency.adapt(LatencyTable.load(like, family), *rest)
    made.save(path)
    judged = {"table": str(path), "rows": len(made.rows), "networks": len(made.networks)} | made.judge()
    emit(judged, as_json, lambda: table("latency table", tuple(judged), [tuple(judged.values())]))


def add_to(app: typer.Typer) -> None:
    """Adds the command of this file."""
    app.command("profile")(profile)
