"""What other packages add by entry points: families, devices, stages, commands, recipes, checkpoint importers."""

from __future__ import annotations

from fnmatch import fnmatchcase
from importlib.metadata import entry_points
from typing import Any

from ofa.core.errors import OfaError, nearest


def plugin_names(group: str, pattern: str = "*") -> list[str]:
    """Return the names registered in an entry-point group that match a pattern as in `fnmatch`, sorted."""
    return sorted(name for name in entry_points(group=group).names if fnmatchcase(name, pattern))


def load_plugin(group: str, name: str, kind: str, error: type[OfaError], advice: str = "") -> Any:
    """Import what an entry point refers to.

    Args:
        group: entry-point group, such as `ofa.devices`.
        name: name in that group.
        kind: what the group holds, for the error message.
        error: class of the error for an unknown name.
        advice: what else may be given, appended to the message.

    Raises:
        OfaError: the name is not registered; the message lists the nearest names.
    """
    for point in entry_points(group=group, name=name):
        return point.load()
    raise error(f"unknown {kind} {name!r}; {nearest(name, plugin_names(group))}{advice}")
