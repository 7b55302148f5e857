"""`ofa profile`: the latency table of a recipe's device, or of any family on any device."""

from __future__ import annotations

import math
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ofa.cli.options import JsonOption, RunOption, TargetOption, execute, family_of, json_object, make_run, user_path
from ofa.cli.output import console, emit, progress, table
from ofa.core.errors import RecipeError

if TYPE_CHECKING:  # the engine imports torch; `ofa --help` does without
    from ofa.cost.latency.table import LatencyTable
    from ofa.pipeline.run import Run


def profile(
    recipe: Annotated[
        str,
        typer.Argument(metavar="RECIPE|FAMILY", help="A recipe; with --device, a family by name or path."),
    ],
    run_dir: RunOption = None,
    target: TargetOption = None,
    device: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Measure a family on this device, without a run; for the options below."),
    ] = None,
    options: Annotated[str | None, typer.Option(help="Family options as JSON: '{\"resolutions\": [96, 128]}'.")] = None,
    device_options: Annotated[str | None, typer.Option(help="Device options as JSON: '{\"threads\": 2}'.")] = None,
    measuring: Annotated[str | None, typer.Option(help="Keys of a recipe's section `profile` as JSON.")] = None,
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
    of_device: dict[str, Any] = {
        "--options": options,
        "--device-options": device_options,
        "--measuring": measuring,
        "--minutes": minutes,
        "--like": like or None,
        "--out": out,
    }
    if device is None:
        _refuse(of_device, "for a family on a device, without a run; add --device, or leave out what is not of the run")
        _profile_run(make_run(recipe, run_dir), target, as_json)
        return
    _refuse({"--run": run_dir, "--target": target}, "for the run of a recipe; leave it out with --device")
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
    result = _summary(path, measured)
    emit(result, as_json, lambda: _show([{"device": device} | result]))


def _refuse(options: dict[str, Any], why: str) -> None:
    """Raise a RecipeError that names those of the options that were given."""
    if given := [name for name, value in options.items() if value is not None]:
        raise RecipeError(f"{', '.join(given)}: {why}")


def _profile_run(run: Run, target: str | None, as_json: bool) -> None:
    execute(run, "profile", target)
    results = []
    for one in run.targets if target is None else [run.target(target)]:
        for precision in one.precisions:
            summary = _summary(one.table_path(precision), one.latency_table(precision))
            results.append({"target": one.name, "precision": precision} | summary)

    emit(results, as_json, lambda: _show(results))


def _show(results: list[dict[str, Any]]) -> None:
    """Show a line for each table, with what is known of it, and their paths below."""
    names = {
        "target": "target",
        "device": "device",
        "precision": "precision",
        "rows": "blocks",
        "networks": "networks",
        "n": "checks",
        "mean_error_percent": "mean error %",
        "within_5_percent": "within 5 %",
        "within_10_percent": "within 10 %",
        "spearman": "Spearman",
    }
    shown = [key for key in names if any(key in result for result in results)]
    rows = [tuple(result.get(key) for key in shown) for result in results]
    table("latency table", [names[key] for key in shown], rows)
    for result in results:
        console.print(result["table"], soft_wrap=True, highlight=False)


def _summary(path: Path, measured: LatencyTable) -> dict[str, Any]:
    """Return what a table holds, and how well it predicts its checks if it has any."""
    metrics = asdict(measured.evaluate()) if measured.checks else {}
    counts = {"table": str(path), "rows": len(measured.rows), "networks": len(measured.networks)}
    return counts | {key: value if math.isfinite(value) else None for key, value in metrics.items()}
