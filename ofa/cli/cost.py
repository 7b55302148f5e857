"""`ofa cost`: what archs of a family cost, without a run."""

from __future__ import annotations

import json
import math
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ofa.cli.options import JsonOption, json_object, user_path
from ofa.cli.output import emit, table
from ofa.core.errors import DeviceError, FamilyError, SpaceError, TableError

if TYPE_CHECKING:
    from ofa.cost.latency.table import LatencyTable
    from ofa.space.arch import Rows
    from ofa.supernet.family import Family

UNITS = {
    "macs_m": "million multiply-accumulates",
    "params_m": "million parameters",
    "size_mib": "MiB",
    "peak_activation_mib": "MiB",
    "latency_ms": "ms",
    "low_ms": "ms",
    "high_ms": "ms",
    "energy_mj": "mJ",
}
_SHOWN = ("MACs\nM", "params\nM", "size\nMiB", "peak\nMiB", "latency\nms", "low\nms", "high\nms", "energy\nmJ")


def cost(
    family: Annotated[str, typer.Argument(metavar="FAMILY", help="By name, see `ofa families`, or Python file.")],
    archs_file: Annotated[
        Path,
        typer.Option(
            "--archs",
            metavar="FILE",
            parser=user_path,
            help="JSON list of archs, or of objects with an `arch` key; - reads standard input.",
        ),
    ],
    device: Annotated[
        str | None, typer.Option(metavar="NAME", help="Latencies of a shipped table, by device or folder.")
    ] = None,
    table_file: Annotated[
        Path | None, typer.Option("--table", metavar="FILE", help="Latencies of this table, of `ofa profile`.")
    ] = None,
    options: Annotated[str, typer.Option(help="Of the family, as JSON: '{\"resolutions\": [96, 128]}'.")] = "{}",
    power_w: Annotated[
        float | None, typer.Option(metavar="WATT", help="What the device draws while it runs, for energy.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Count what archs cost: operations, size, memory; with a latency table also time and energy."""
    if device is not None and table_file is not None:
        raise TableError("--device and --table both name a latency table; give one of them")
    if power_w is not None and not 0 < power_w < math.inf:
        raise DeviceError(f"--power-w {power_w:g} must be above 0")
    if power_w is not None and device is None and table_file is None:
        raise TableError("--power-w wants latencies; add --device NAME or --table FILE")
    from ofa.cost.latency.table import LatencyTable
    from ofa.space.arch_file import read_archs

    made = _family(family, options)
    archs = read_archs(archs_file, made.space)
    if not archs:
        raise SpaceError(f"the list of archs in {archs_file} is empty; give at least one")
    path = table_file if device is None else _shipped(family, made, device)
    costs = _costs(made, made.space.rows(archs), None if path is None else LatencyTable.load(path, made), power_w)
    found = {
        "family": made.name,
        "units": {key: UNITS[key] for key in costs},
        "archs": [{"arch": dict(arch)} | {key: costs[key][i] for key in costs} for i, arch in enumerate(archs)],
    }

    def show() -> None:
        shown = dict(zip(UNITS, _SHOWN, strict=True))
        columns = ("arch", *(shown[key] for key in costs))
        known = [["-" if value is None else value for value in values] for values in costs.values()]
        rows = [(i, *row) for i, row in enumerate(zip(*known, strict=True))]
        of_table = "" if path is None else f", latencies of {path.parent.name}/{path.name}"
        table(f"costs of {made.name}{of_table}", columns, rows)

    emit(found, as_json, show)


def _family(name: str, options: str) -> Family:
    from ofa.supernet.registry import create_family

    chosen = json_object("--options", options)
    try:
        return create_family(name, **chosen)
    except (TypeError, ValueError) as error:
        raise FamilyError(f"--options of {name!r}: {error}") from error


def _costs(
    family: Family, rows: Rows, latency: LatencyTable | None, power_w: float | None
) -> dict[str, list[float | None]]:
    """Every cost that can be known, by the names of `UNITS`; None for the end of an interval that is not known."""
    from ofa.cost.counted import macs_m, params_m
    from ofa.cost.energy import PowerConfig, energy_mj
    from ofa.cost.memory import peak_activation_mib, size_mib

    found = {
        "macs_m": macs_m(family)(rows),
        "params_m": params_m(family)(rows),
        "size_mib": size_mib(family)(rows),
        "peak_activation_mib": peak_activation_mib(family)(rows),
    }
    if latency is not None:
        found |= latency.predict(rows)._asdict()
        if power_w is not None:
            found["energy_mj"] = energy_mj(found["latency_ms"], found["macs_m"], PowerConfig(busy_w=power_w))
    return {key: [x if math.isfinite(x) else None for x in values.tolist()] for key, values in found.items()}


def _shipped(name: str, family: Family, device: str) -> Path:
    """The one shipped table of a family on a device, which may also be the name of its folder."""
    found, others = [], set()
    for path in sorted(Path(str(files("latency_luts"))).glob("*/*.json")):
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["family"]["name"] == family.name:
            if path.parent.name == device:
                return path
            if content["device"]["device"] == device:
                found.append(path)
            others.add(path.parent.name)
    if not found:
        raise TableError(
            f"no latency table of {family.name!r} on {device!r} is shipped (there are: {_listed(others)}); measure one "
            f"with `ofa profile {name} --device {device} --out FILE` and give it with --table FILE"
        )
    if len(found) > 1:
        folders = _listed({path.parent.name for path in found})
        raise TableError(
            f"several latency tables of {family.name!r} are of {device!r}; choose with --device: {folders}"
        )
    return found[0]


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def add_to(app: typer.Typer) -> None:
    """Adds the command of this file."""
    app.command("cost")(cost)
