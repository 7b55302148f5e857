"""Model formats: files that hold a network in a precision, found by entry points of the group `ofa.formats`."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import nn

from ofa.core.errors import ExportError
from ofa.core.plugins import call_plugin, load_plugin

_GROUP = "ofa.formats"

Logits = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Returns the logits `[n, classes]` of images `[n, channels, height, width]`."""


class Format(Protocol):
    """Writes networks as files, and computes with them as they are deployed.

    Attributes:
        name: registered name, such as `onnx`.
        suffix: of its files, such as `.onnx`.
    """

    name: str
    suffix: str

    def write(
        self,
        network: nn.Module,
        input_shape: tuple[int, ...],
        path: Path,
        *,
        precision: str,
        images: NDArray[np.float32],
        metadata: Mapping[str, str],
    ) -> None:
        """Write a float32 network in a precision, whole or not at all.

        `images` `[n, *input_shape]` are preprocessed training images, for the ranges of activations; `metadata` is
        stored in the file where the format can.

        Raises:
            ExportError: the network cannot be exported.
            DeviceError: it cannot be converted to the precision, or the file does not run.
        """
        ...

    def load(self, path: Path) -> Logits:
        """Load a file on this computer; DeviceError if it does not run."""
        ...


def create_format(name: str, **options: Any) -> Format:
    """Create a format by its registered name; the options are its keyword arguments, such as `opset`.

    Raises:
        ExportError: unknown name or option, or an option that the format refuses.
    """
    factory: Callable[..., Format] = load_plugin(_GROUP, name, "model format", ExportError)
    return call_plugin(factory, options, f"model format {name!r}", ExportError)[0]
