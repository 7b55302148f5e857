"""What other packages add by entry points: families, devices, stages, commands, recipes, checkpoint importers."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
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


def bind_options(
    function: Callable[..., Any], options: Mapping[str, Any], subject: str, error: type[OfaError]
) -> dict[str, Any]:
    """Return the arguments of a plugin's function: the given options, and the defaults of the others.

    Args:
        function: the plugin; every parameter is an option.
        options: values by name.
        subject: what is created, such as `device 'ort-cpu'`, to start an error message.
        error: class of the errors.

    Raises:
        OfaError: an option is unknown, or one without default is missing.
    """
    parameters = inspect.signature(function).parameters
    for unknown in sorted(set(options) - set(parameters)):
        raise error(f"{subject} has no option {unknown!r}; {nearest(unknown, parameters)}")
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in options:
            raise error(f"{subject} requires the option {name!r}; {accepted(function)}")
    defaults = {name: parameter.default for name, parameter in parameters.items()}
    return defaults | dict(options)


def accepted(function: Callable[..., Any]) -> str:
    """List a plugin's options with types and defaults, to end an error message."""
    return "it takes " + ", ".join(map(str, inspect.signature(function).parameters.values()))
