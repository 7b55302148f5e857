"""Families: a list of slots, the space they span, and how they become a network.

Families reach the engine through the entry-point group `ofa.supernets`, or as a path to a Python file;
either way a family is a function `family(num_classes, in_channels, ...) -> Family`.
"""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from ofa.core.errors import FamilyError
from ofa.supernet.family import Family


def create_family(name: str, **options: Any) -> Family:
    """Makes a family by its registered name or from a Python file that defines `family(...)`.

    Args:
        name: a name of the entry-point group `ofa.supernets`, or a path that ends in `.py`.
        options: passed on, such as `num_classes`, `in_channels`, `resolutions`.

    Raises:
        FamilyError: no such family, or an option that it does not have.
    """
    factory = _from_file(Path(name)) if name.endswith(".py") else _registered(name)
    signature = inspect.signature(factory)
    unknown = sorted(set(options) - set(signature.parameters))
    if unknown:
        raise FamilyError(f"family {name!r} has no option {unknown[0]!r}; it has {', '.join(signature.parameters)}")
    bound = signature.bind(**options)
    bound.apply_defaults()
    return replace(factory(**bound.arguments), options=bound.arguments)


def list_families() -> list[str]:
    """The registered families, sorted."""
    return sorted(entry_points(group="ofa.supernets").names)


def _registered(name: str) -> Callable[..., Family]:
    found = entry_points(group="ofa.supernets", name=name)
    if not found:
        raise FamilyError(
            f"unknown family {name!r}; registered: {', '.join(list_families())}, or give a path to a .py file"
        )
    factory: Callable[..., Family] = next(iter(found)).load()
    return factory


def _from_file(path: Path) -> Callable[..., Family]:
    if not path.is_file():
        raise FamilyError(f"no family file {path}; give a path to a Python file that defines family(...)")
    spec = importlib.util.spec_from_file_location(f"ofa_family_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise FamilyError(f"{path} cannot be imported as Python")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    factory: Callable[..., Family] | None = getattr(module, "family", None)
    if not callable(factory):
        raise FamilyError(f"{path} defines no function family(num_classes, in_channels, ...) -> Family")
    return factory
