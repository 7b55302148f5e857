"""Attention to the best or the worst archs of a size."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from ofa.space.arch import Arch
from ofa.train.strategies.base import Draw, Phase

_POOL = 256
"""Random archs among which those of the wanted size are looked for."""


class Pareto(Phase):
    """A sandwich whose random archs are the best or the worst of their size (AttentiveNAS, arXiv 2011.09011, 3).

    A size is drawn as random archs are distributed; of some archs nearest to it in multiply-accumulates, the one with
    the lowest (best-up) or highest (worst-up) loss on the batch is trained.
    """

    strategy: Literal["pareto"]
    random: int = Field(2, ge=1, le=16)
    """How many archs a step trains beside the largest and the smallest."""
    candidates: int = Field(3, ge=2, le=64)
    """Of how many archs of one size the best or worst is taken; each costs a forward pass."""
    attend: Literal["best", "worst"] = "best"
    """`best`: best-up, trains what the front will be made of. `worst`: worst-up, what lags behind most."""

    def archs(self, draw: Draw) -> list[Arch]:
        """The largest first, so that the others can learn from it."""
        space = draw.space
        pool = space.sample(_POOL, draw.rng)
        macs_m = draw.macs_m(pool)
        chosen = []
        for target in draw.rng.permutation(_POOL)[: self.random]:
            nearest = np.argsort(np.abs(macs_m - macs_m[target]), kind="stable")[: self.candidates]
            archs = [space.decode(pool[i]) for i in nearest]
            losses = np.array(draw.losses(archs))
            chosen.append(archs[int(losses.argmin() if self.attend == "best" else losses.argmax())])
        return [space.largest, space.smallest, *chosen]
