"""`ofa import`: another project's checkpoint as weights to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
import yaml

from ofa.cli.output import console
from ofa.core.errors import FamilyError


def import_weights(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="Project of the checkpoint, such as once-for-all.")],
    checkpoint: Annotated[Path, typer.Argument(metavar="FILE", help="Checkpoint, of torch.save or safetensors.")],
    family: Annotated[str, typer.Argument(metavar="FAMILY", help="Family that it belongs to; see `ofa families`.")],
    out: Annotated[Path, typer.Option("--out", help="Safetensors file to write.")] = Path("supernet.safetensors"),
    option: Annotated[
        list[str] | None, typer.Option("--option", metavar="KEY=VALUE", help="Option of the family; may be repeated.")
    ] = None,
) -> None:
    """Import a checkpoint of another project, for `train.initial_weights` of a recipe."""
    from ofa.core.tensors import write_tensors
    from ofa.supernet.importing import import_checkpoint
    from ofa.supernet.registry import create_family as make

    supernet = import_checkpoint(source, checkpoint, make(family, **_options(option or [])))
    write_tensors(out, supernet.network.state_dict(), {"family": family})
    n_tensors = len(supernet.network.state_dict())
    console.print(f"{n_tensors} tensors of {checkpoint} written to {out}", highlight=False, soft_wrap=True)
    console.print("start from them with `train: {initial_weights: FILE}` in a recipe", highlight=False, soft_wrap=True)


def _options(pairs: list[str]) -> dict[str, object]:
    options = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise FamilyError(f"--option {pair!r} is not KEY=VALUE, such as width_mult=1.2")
        try:
            options[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise FamilyError(f"--option {pair!r} has no readable value, such as 1.2 or [160, 192]") from error
    return options


def add_to(app: typer.Typer) -> None:
    """Adds the command of this file."""
    app.command("import")(import_weights)
