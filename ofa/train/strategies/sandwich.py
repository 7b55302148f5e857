"""The sandwich rule."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ofa.space.arch import Arch
from ofa.train.strategies.base import Draw, Phase


class Sandwich(Phase):
    """Trains the largest, the smallest and random archs (arXiv 1903.05134, 3.2; BigNAS, arXiv 2003.11142, 3.1)."""

    strategy: Literal["sandwich"]
    random: int = Field(2, ge=0, le=16)
    """Random archs that a step trains beside the largest and the smallest."""

    def archs(self, draw: Draw) -> list[Arch]:
        """Return the largest first, so that the others can learn from it."""
        return [draw.space.largest, draw.space.smallest, *draw.random(self.random)]
