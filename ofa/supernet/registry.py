"""Families by name, as in timm: registered by entry points, or defined in a Python file."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from ofa.core.errors import FamilyError, one_line
from ofa.core.plugins import call_plugin, function_in_file, load_plugin, plugin_names
from ofa.supernet.block import skeleton
from ofa.supernet.family import Family, Origin

_GROUP = "ofa.supernets"


def create_family(name: str, **options: Any) -> Family:
    """Create a family by its registered name or from a Python file, `PATH.py`, that defines `family(...)`.

    Options are the arguments of the family's function, such as `num_classes`, `in_channels`, `resolutions`.

    Raises:
        FamilyError: the family is unknown, or refuses an option.
    """
    if name.endswith(".py"):
        function = function_in_file(Path(name).expanduser(), "family", FamilyError)
    else:
        function = load_plugin(_GROUP, name, "family", FamilyError, "; or give the path of a Python file")
    family: Family
    family, arguments = call_plugin(function, options, f"family {name!r}", FamilyError)
    return replace(family, origin=Origin(name, arguments))


def list_families(pattern: str = "*") -> list[str]:
    """Return the names of the registered families that match a pattern such as `*mobile*`, sorted."""
    return plugin_names(_GROUP, pattern)


def recreate_family(origin: Origin) -> Family:
    """Create a family again, as it was made; see `create_family` for errors."""
    family = create_family(origin.name, **origin.options)
    return family.coupled(origin.couple) if origin.couple else family


def check_family(family: Family) -> None:
    """Build the smallest and the largest network on the meta device, so that wrong options appear early.

    Raises:
        FamilyError: one of them cannot be built.
    """
    for arch in (family.space.smallest, family.space.largest):
        try:
            skeleton(partial(family.build, arch))
        except Exception as error:  # builders raise all kinds
            raise FamilyError(
                f"family {family.name!r} with options {dict(family.options)} cannot build {arch}: {one_line(error)}; "
                "change the options"
            ) from error
