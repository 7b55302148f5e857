"""What other packages add by entry points: families, devices, stages, commands, recipes, checkpoint importers."""

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
    """Import what an entry point of a group such as `ofa.devices` refers to.

    If the name is not registered, raise an `error` that calls it an unknown `kind`, lists the nearest names, and ends
    with the advice.
    """
    for point in entry_points(group=group, name=name):
        return point.load()
    raise error(f"unknown {kind} {name!r}; {nearest(name, plugin_names(group))}{advice}")


def bind_options(
    function: Callable[..., Any], options: Mapping[str, Any], subject: str, error: type[OfaError]
) -> dict[str, Any]:
    """Return the arguments of a plugin's function: the given options, and the defaults of the others.

    An unknown option, or a missing one without default, is an `error` about the subject, such as `device 'ort-cpu'`.
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
