"""One-line errors from what exporters and runtimes raise, and checks of numeric options and paths."""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ofa.core.errors import DeviceError, OfaError

_CODE = re.compile(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ")
_REQUEST = re.compile(r"\. Please | *\[Caused by")  # torch asks for an issue, and quotes the graph

MAX_SECONDS = 1_000_000
"""Longest timeout that can be set: sockets and child processes fail beyond 2**31 milliseconds."""


@contextmanager
def one_line(kind: type[OfaError], what: str, advice: str | Callable[[str], str]) -> Iterator[None]:
    """Turn any other exception into a `kind` that reads "`what`: its message; `advice`" on one line.

    Errors of this package and of the operating system pass through: their messages are for users already. `what` says
    what failed, such as "ONNX Runtime cannot load model.onnx"; `advice` may be a function from the message to it.
    """
    try:
        yield
    except (OfaError, OSError):
        raise
    except Exception as error:  # runtimes' errors have no common class
        words = " ".join(str(error).split()) or type(error).__name__
        message = _CODE.sub("", _REQUEST.split(words)[0])[:300].rstrip(".")
        step = advice if isinstance(advice, str) else advice(message)
        raise kind(f"{what}: {message}; {step}") from error


def check_number(
    name: str, value: Any, low: float, high: float, *, whole: bool = False, kind: type[OfaError] = DeviceError
) -> None:
    """Raise a `kind` for an option, such as "adb: timeout_s", that is not a number from `low` to `high`.

    Booleans and NaN are not numbers; with `whole`, only integers are.
    """
    number = isinstance(value, Integral if whole else Real) and not isinstance(value, bool)
    if not (number and low <= value <= high):
        article = "a whole number" if whole else "a number"
        raise kind(f"{name} = {value!r:.60} is not allowed; give {article} from {low} to {high}")


def check_choice(name: str, value: Any, allowed: Sequence[Any], *, kind: type[OfaError] = DeviceError) -> None:
    """Raise a `kind` for an option that is not one of `allowed`."""
    if not any(type(value) is type(one) and value == one for one in allowed):
        raise kind(f"{name} = {value!r:.60} is not known; choose from {', '.join(map(str, allowed))}")


def local_path(path: str | Path) -> Path:
    """Return a path of this machine with `~` expanded."""
    return Path(os.path.expanduser(path))


def check_installed(module: str, name: str, extra: str) -> None:
    """Raise DeviceError if a module that comes with an extra of this package is not there; `name` is what it is."""
    if find_spec(module) is None:
        raise DeviceError(f"{name} is not installed; run in the checkout: pip install -e '.[{extra}]'")


def check_image_shape(expected: tuple[int, ...], images: NDArray[Any]) -> None:
    """Raise DeviceError unless images `[n, channels, height, width]` are of the shape that a model takes."""
    if images.shape[1:] != expected:
        raise DeviceError(f"the model takes images {['n', *expected]}, these are {list(images.shape)}")
