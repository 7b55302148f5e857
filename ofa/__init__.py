"""Train one elastic supernet, then deploy the best subnet of it for every target.

Names are loaded when first used, so that `import ofa` and the runtime on a device do not pay for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ofa.cost.table import LatencyTable as LatencyTable
    from ofa.errors import OfaError as OfaError
    from ofa.families import Family as Family
    from ofa.families import Slot as Slot
    from ofa.families import family as family
    from ofa.families import family_names as family_names
    from ofa.importing import import_checkpoint as import_checkpoint
    from ofa.predict import AccuracyPredictor as AccuracyPredictor
    from ofa.space import Arch as Arch
    from ofa.space import Choice as Choice
    from ofa.space import SearchSpace as SearchSpace
    from ofa.supernet import Supernet as Supernet

__version__ = "0.1.0"

_HOME = {
    "AccuracyPredictor": "predict",
    "Arch": "space",
    "Choice": "space",
    "Family": "families",
    "LatencyTable": "cost.table",
    "OfaError": "errors",
    "SearchSpace": "space",
    "Slot": "families",
    "Supernet": "supernet",
    "family": "families",
    "family_names": "families",
    "import_checkpoint": "importing",
}
__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'ofa' has no attribute {name!r}")
    return getattr(importlib.import_module(f"ofa.{_HOME[name]}"), name)
