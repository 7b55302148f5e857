"""`ofa families`, `ofa devices`, `ofa recipes` and `ofa env`."""

import os
import platform
from importlib.metadata import version
from typing import Annotated

import typer

from ofa.cli.options import JsonOption
from ofa.cli.output import emit, table


def families(as_json: JsonOption = False) -> None:
    """List the registered families with the size and span of their search spaces."""
    from ofa.cost.counted import macs_m, params_m
    from ofa.supernet.registry import create_family, list_families

    entries = []
    for name in list_families():
        family = create_family(name)
        rows = family.space.rows([family.space.smallest, family.space.largest])
        macs, params = macs_m(family)(rows), params_m(family)(rows)
        entries.append(
            {
                "name": name,
                "space_size": family.space.size,
                "n_choices": len(family.space.choices),
                "resolutions": list(family.resolutions),
                "macs_m": macs.tolist(),
                "params_m": params.tolist(),
            }
        )
    rows_shown = [
        (
            entry["name"],
            f"{entry['space_size']:.2g}",
            entry["n_choices"],
            f"{entry['resolutions'][0]} to {entry['resolutions'][-1]}",
            f"{entry['macs_m'][0]:.3g} to {entry['macs_m'][1]:.4g}",
            f"{entry['params_m'][0]:.3g} to {entry['params_m'][1]:.3g}",
        )
        for entry in entries
    ]
    columns = ("family", "archs", "choices", "pixels", "MACs M", "params M")
    emit(entries, as_json, lambda: table("families", columns, rows_shown))


def devices(as_json: JsonOption = False) -> None:
    """List the devices that can be measured and the latency tables that are shipped."""
    from ofa.cost.latency.measurements import shipped_tables
    from ofa.devices.registry import describe_devices

    descriptions, tables = describe_devices(), list(shipped_tables().values())

    def show() -> None:
        table("devices that can be measured", ("name", "description"), list(descriptions.items()))
        columns = ("table", "family", "rows", "date", "processor", "threads", "precision")
        table("shipped latency tables", columns, [[entry.get(column, "") for column in columns] for entry in tables])

    emit({"devices": descriptions, "tables": tables}, as_json, show)


def recipes(
    markdown: Annotated[
        bool, typer.Option("--markdown", help="Print the reference as a page of documentation.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """List the shipped recipes and every key that a recipe may have."""
    from ofa.pipeline.recipe_file import shipped_recipes
    from ofa.pipeline.recipe_reference import keys
    from ofa.pipeline.recipe_reference import markdown as page

    if markdown:
        print(page(), end="")
        return
    reference = {"shipped": list(shipped_recipes()), "keys": [key._asdict() for key in keys()]}

    def show() -> None:
        table("shipped recipes", ("name", "file"), list(shipped_recipes().items()))
        table("keys", ("key", "type", "default", "meaning"), list(keys()))

    emit(reference, as_json, show)


def env(as_json: JsonOption = False) -> None:
    """Print versions and machine, to paste into a bug report."""
    names = ("ofa", "torch", "torchvision", "timm", "onnx", "onnxruntime", "numpy", "scikit-learn", "pydantic")
    versions = {name: version(name) for name in names}
    versions |= {"python": platform.python_version(), "platform": platform.platform(), "cores": str(os.cpu_count())}
    emit(versions, as_json, lambda: table("environment", ("what", "version"), list(versions.items())))
