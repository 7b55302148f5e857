"""Random archs alone: single-path sampling, entangled weights, and the stages of progressive shrinking."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ofa.space.arch import Arch
from ofa.train.strategies.base import Draw, Phase


class Uniform(Phase):
    """Trains random archs of one image size (AutoFormer, arXiv 2107.00651, 3.2; once-for-all, 1908.09791, 3.3)."""

    strategy: Literal["uniform"]
    subnets: int = Field(1, ge=1, le=16)
    """Archs that a step trains."""

    def resolution(self, draw: Draw) -> int:
        """Return the one resolution of the step's archs."""
        return int(self.archs(draw)[0]["resolution"])

    def archs(self, draw: Draw) -> list[Arch]:
        """Return archs drawn uniformly, all with the resolution of the first."""
        space = draw.space
        rows = space.sample(self.subnets, draw.rng)
        rows[:, space.column("resolution")] = rows[0, space.column("resolution")]
        return [space.decode(row) for row in rows]
