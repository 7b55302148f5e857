"""`ofa import`: another project's checkpoint as weights to start from."""

from pathlib import Path
from typing import Annotated

import typer
import yaml

from ofa.cli.options import user_path
from ofa.cli.output import console
from ofa.core.errors import FamilyError


def import_weights(
    project: Annotated[str, typer.Argument(metavar="PROJECT", help="Where it is from, such as once-for-all.")],
    checkpoint: Annotated[Path, typer.Argument(metavar="FILE", parser=user_path, help="Checkpoint file.")],
    family: Annotated[str, typer.Argument(metavar="FAMILY", help="Its family; see `ofa families`.")],
    out: Annotated[
        Path, typer.Option("--out", metavar="FILE", parser=user_path, help="Safetensors file to write.")
    ] = Path("supernet.safetensors"),
    option: Annotated[
        list[str] | None, typer.Option("--option", metavar="KEY=VALUE", help="Option of the family; may be repeated.")
    ] = None,
) -> None:
    """Import a checkpoint of another project, for `train.initial_weights` of a recipe."""
    from ofa.supernet.importing import import_checkpoint
    from ofa.supernet.registry import create_family

    supernet = import_checkpoint(project, checkpoint, create_family(family, **_options(option or [])))
    supernet.save(out)
    n_tensors = len(supernet.network.state_dict())
    console.print(f"wrote {n_tensors} tensors of {checkpoint} to {out}", highlight=False, soft_wrap=True)
    console.print("to start from them, set `train: {initial_weights: FILE}`", highlight=False, soft_wrap=True)


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
