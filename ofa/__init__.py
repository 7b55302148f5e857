"""Train one elastic supernet, then deploy the best subnet of it for every target.

Names are loaded when first used, so that `import ofa` and the runtime on a device do not pay for torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ofa.core.errors import OfaError as OfaError
    from ofa.cost.latency.table import LatencyTable as LatencyTable
    from ofa.predict.mlp import AccuracyPredictor as AccuracyPredictor
    from ofa.space.arch import Arch as Arch
    from ofa.space.choice import Choice as Choice
    from ofa.space.search_space import SearchSpace as SearchSpace
    from ofa.supernet.family import Family as Family
    from ofa.supernet.importing import import_checkpoint as import_checkpoint
    from ofa.supernet.registry import create_family as create_family
    from ofa.supernet.registry import list_families as list_families
    from ofa.supernet.slot import Slot as Slot
    from ofa.supernet.supernet import Supernet as Supernet

__version__ = "0.1.0"

_HOME = {
    "AccuracyPredictor": "predict.mlp",
    "Arch": "space.arch",
    "Choice": "space.choice",
    "Family": "supernet.family",
    "LatencyTable": "cost.latency.table",
    "OfaError": "core.errors",
    "SearchSpace": "space.search_space",
    "Slot": "supernet.slot",
    "Supernet": "supernet.supernet",
    "create_family": "supernet.registry",
    "import_checkpoint": "supernet.importing",
    "list_families": "supernet.registry",
}
__all__ = ["__version__", *_HOME]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'ofa' has no attribute {name!r}")
    return getattr(importlib.import_module(f"ofa.{_HOME[name]}"), name)
