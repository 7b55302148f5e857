"""`ofa cost`: the costs of archs of a family, without a run."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ofa.cli.options import JsonOption, family_of, user_path
from ofa.cli.output import emit, table
from ofa.core.errors import SpaceError, TableError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ofa.cost.energy import PowerConfig
    from ofa.cost.latency.table import LatencyTable
    from ofa.space.arch import Rows
    from ofa.supernet.family import Family


def cost(
    family: Annotated[
        str, typer.Argument(metavar="FAMILY", help="Name of a family (see `ofa families`), or path of a Python file.")
    ],
    archs_file: Annotated[
        Path,
        typer.Option(
            "--archs",
            metavar="FILE",
            parser=user_path,
            help="JSON list of archs, or of objects with a key `arch`; - reads standard input.",
        ),
    ],
    device: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Predict latencies from a shipped table; name its device or its folder."),
    ] = None,
    table_file: Annotated[
        Path | None,
        typer.Option(
            "--table", metavar="FILE", parser=user_path, help="Predict latencies from a table that `ofa profile` wrote."
        ),
    ] = None,
    options: Annotated[str, typer.Option(help="Family options as JSON: '{\"resolutions\": [96, 128]}'.")] = "{}",
    power_w: Annotated[
        float | None, typer.Option(metavar="WATTS", help="Power of the busy device, for the energy per image.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show the costs of archs: MACs, parameters, size, memory; with a latency table also latency and energy."""
    if device is not None and table_file is not None:
        raise TableError("--device and --table both name a latency table; give one of them")
    if power_w is not None and device is None and table_file is None:
        raise TableError("--power-w requires latencies; add --device NAME or --table FILE")
    from ofa.core.config import validate
    from ofa.cost.energy import PowerConfig
    from ofa.cost.latency.table import LatencyTable
    from ofa.space.arch_file import read_archs

    power = None if power_w is None else validate(PowerConfig, {"busy_w": power_w}, "--power-w")
    created = family_of(family, options)
    archs = read_archs(archs_file, created.space)
    if not archs:
        raise SpaceError(f"the list of archs in {archs_file} is empty; give at least one")
    path = table_file if device is None else _shipped_table(family, created.name, device)
    latency = None if path is None else LatencyTable.load(path, created)
    costs, units = _costs(created, created.space.rows(archs), latency, power)
    values = {name: [ms if math.isfinite(ms) else None for ms in cost.tolist()] for name, cost in costs.items()}
    entries = [{"arch": dict(arch)} | {name: values[name][i] for name in values} for i, arch in enumerate(archs)]

    def show() -> None:
        columns = ("arch", *("\n".join(name.rsplit("_", 1)) for name in values))
        rows = [
            (i, *("-" if entry[name] is None else entry[name] for name in values)) for i, entry in enumerate(entries)
        ]
        source = "" if path is None else f", latencies from {Path(path.parent.name, path.name)}"
        table(f"costs of {created.name}{source}", columns, rows)

    emit({"family": created.name, "units": units, "archs": entries}, as_json, show)


def _costs(
    family: Family, rows: Rows, latency: LatencyTable | None, power: PowerConfig | None
) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Return every cost that is known `[n]`, and its unit, by name."""
    from ofa.cost.counted import macs_m, params_m, peak_activation_mib, size_mib
    from ofa.cost.energy import energy_mj

    counted = (macs_m(family), params_m(family), size_mib(family), peak_activation_mib(family))
    costs, units = {cost.name: cost(rows) for cost in counted}, {cost.name: cost.unit for cost in counted}
    if latency is not None:
        predicted = latency.predict(rows)
        costs |= {"latency_ms": predicted.mean, "low_ms": predicted.low, "high_ms": predicted.high}
        units |= dict.fromkeys(("latency_ms", "low_ms", "high_ms"), latency.unit)
        if power is not None:
            costs["energy_mj"], units["energy_mj"] = energy_mj(predicted.mean, costs["macs_m"], power), "mJ"
    return costs, units


def _shipped_table(family: str, name: str, device: str) -> Path:
    """Return the path of the only shipped table of a family that is of a device or in a folder of that name."""
    from ofa.cost.latency.measurements import shipped_tables

    tables = {path: summary for path, summary in shipped_tables().items() if summary["family"] == name}
    paths = [path for path, summary in tables.items() if device in (summary["table"], summary["device"])]
    folders = ", ".join(sorted(tables[path]["table"] for path in paths or tables)) or "none"
    if not paths:
        raise TableError(
            f"no latency table of {name!r} on {device!r} is shipped (there are: {folders}); measure one "
            f"with `ofa profile {family} --device {device} --out FILE` and give it with --table FILE"
        )
    if len(paths) > 1:
        raise TableError(f"several latency tables of {name!r} are of {device!r}; choose with --device: {folders}")
    return paths[0]
