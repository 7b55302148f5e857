"""What other packages add by entry points: families, devices, stages, commands, recipes, checkpoint importers."""

import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from importlib.metadata import entry_points
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

from ofa.core.config import validate
from ofa.core.errors import OfaError, nearest, one_line

T = TypeVar("T")


def plugin_names(group: str, pattern: str = "*") -> list[str]:
    """Return the names registered in an entry-point group that match a pattern as in `fnmatch`, sorted."""
    return sorted(name for name in entry_points(group=group).names if fnmatchcase(name, pattern))


def plugin_folders(group: str) -> list[Path]:
    """Return the folders of the packages that the entry points of a group name, for the files that they ship."""
    return [Path(str(files(point.load()))) for point in sorted(entry_points(group=group))]


def load_plugin(group: str, name: str, kind: str, error: type[OfaError], advice: str = "") -> Any:
    """Import what an entry point of a group such as `ofa.devices` refers to.

    If the name is not registered, raise an `error` that calls it an unknown `kind`, lists the nearest names, and ends
    with the advice.
    """
    for point in entry_points(group=group, name=name):
        return point.load()
    raise error(f"unknown {kind} {name!r}; {nearest(name, plugin_names(group))}{advice}")


def load_configured(
    group: str, name: str, settings: Mapping[str, Any], kind: str, error: type[OfaError]
) -> tuple[Any, Any]:
    """Import a class of an entry-point group; return it, and the settings as an instance of its class `Settings`.

    If the name is not registered, or a setting is unknown or not allowed, raise an `error` that says what is.
    """
    plugin = load_plugin(group, name, kind, error)
    return plugin, validate(plugin.Settings, settings, f"{kind} {name!r}", error)


def function_in_file(path: Path, name: str, error: type[OfaError]) -> Callable[..., Any]:
    """Import a Python file and return its function of that name; an `error` if there is no such file or function."""
    if not path.is_file():
        raise error(f"no {name} file {path}; give the path of a Python file that defines {name}(...)")
    spec = importlib.util.spec_from_file_location(f"ofa_{name}_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise error(f"{path} cannot be imported as Python")
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # dataclasses look themselves up there
    spec.loader.exec_module(module)
    function: Callable[..., Any] | None = getattr(module, name, None)
    if not callable(function):
        raise error(f"{path} defines no function {name}(...)")
    return function


def call_plugin(
    function: Callable[..., T], options: Mapping[str, Any], subject: str, error: type[OfaError]
) -> tuple[T, dict[str, Any]]:
    """Call a plugin's function; return what it returns, and all its arguments: the options, and defaults of the others.

    An unknown option, a missing one without default, or one that the function refuses is an `error` about the subject,
    such as `device 'ort-cpu'`.
    """
    signature = inspect.signature(function).parameters.values()
    parameters = {one.name: one for one in signature if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)}
    takes_any = any(one.kind is one.VAR_KEYWORD for one in signature)
    accepted = "it takes " + ", ".join(map(str, signature))
    for unknown in sorted(set(options) - set(parameters)) if not takes_any else ():
        raise error(f"{subject} has no option {unknown!r}; {nearest(unknown, parameters)}")
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in options:
            raise error(f"{subject} requires the option {name!r}; {accepted}")
    arguments = {name: parameter.default for name, parameter in parameters.items()} | dict(options)
    try:
        return function(**arguments), arguments
    except (TypeError, ValueError, ArithmeticError) as refusal:
        raise error(f"{subject} refuses the options {options}: {one_line(refusal)}; {accepted}") from refusal
