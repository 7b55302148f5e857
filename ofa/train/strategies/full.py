"""The largest network alone: how training starts before anything shrinks."""

from __future__ import annotations

from typing import Literal

from ofa.space.arch import Arch
from ofa.train.strategies.base import Draw, Phase


class Full(Phase):
    """Trains the largest network alone (once-for-all, arXiv 1908.09791, 3.3)."""

    strategy: Literal["full"]

    def archs(self, draw: Draw) -> list[Arch]:
        """Return the largest arch."""
        return [draw.space.largest]
