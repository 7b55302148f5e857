"""Data sets by name: those that packages register, torchvision's, and Python files."""

from dataclasses import replace
from functools import partial
from pathlib import Path

from ofa.core.errors import DataError
from ofa.core.plugins import call_plugin, load_plugin, plugin_names
from ofa.data.config import DataConfig
from ofa.data.dataset import Data
from ofa.data.sources.python_file import python_file
from ofa.data.sources.torchvision_sets import torchvision_set

_GROUP, _TORCHVISION = "ofa.data", "torchvision:"


def load_data(config: DataConfig) -> Data:
    """Load a data set; the same configuration gives the same splits.

    Raises:
        DataError: the data set is unknown, missing, broken, or has too few images or classes.
    """
    name, options = config.name, config.options
    try:
        if name.endswith(".py"):
            data = python_file(Path(name).expanduser(), options)
        elif name.startswith(_TORCHVISION):
            data = torchvision_set(config, name.removeprefix(_TORCHVISION), **options)
        else:
            advice = f"; or {_TORCHVISION}NAME, or give the path of a Python file"
            source = load_plugin(_GROUP, name, "data set", DataError, advice)
            data, _ = call_plugin(partial(source, config), options, f"data set {name!r}", DataError)
    except OSError as error:
        raise DataError(f"cannot read the data set {name!r}: {error}") from error
    return replace(
        data,
        sampler=config.sampler,
        workers=config.workers,
        cache_mib=config.cache_mib,
        background=config.background,
    )


def list_data() -> list[str]:
    """Return the names of the registered data sets, sorted."""
    return plugin_names(_GROUP)
