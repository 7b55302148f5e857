"""A Python file that defines `data(...)`."""

from pathlib import Path
from typing import Any

from ofa.core.errors import DataError
from ofa.core.plugins import call_plugin, function_in_file
from ofa.data.dataset import Data


def python_file(path: Path, options: dict[str, Any]) -> Data:
    """Return what the function `data` of a file returns for the options; DataError if it is no `Data`."""
    function = function_in_file(path, "data", DataError)
    data, _ = call_plugin(function, options, f"data(...) in {path}", DataError)
    if not isinstance(data, Data):
        raise DataError(f"data(...) in {path} returns a {type(data).__name__}; return an ofa.Data")
    return data
