"""Attention to the best or the worst archs of a size."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field

from ofa.space.arch import Arch
from ofa.train.strategies.base import BatchDraw, Phase

_POOL = 256
"""Random archs from which those nearest to a target size are taken."""


class Pareto(Phase):
    """A sandwich whose random archs are the best or the worst of their size (AttentiveNAS, arXiv 2011.09011, 3).

    Target sizes follow the distribution of random archs. Among the archs nearest to a target in multiply-accumulates,
    the one with the lowest (best-up) or highest (worst-up) loss on the batch is trained.
    """

    strategy: Literal["pareto"]
    random: int = Field(2, ge=1, le=16)
    """Archs that a step trains beside the largest and the smallest."""
    candidates: int = Field(3, ge=2, le=64)
    """Archs of one size among which the best or worst is picked; each costs a forward pass."""
    attend: Literal["best", "worst"] = "best"
    """`best` (best-up) trains what the Pareto front will consist of, `worst` (worst-up) the archs that lag most."""

    def archs(self, draw: BatchDraw) -> list[Arch]:
        """Return the largest, the smallest, and one attended arch for each of `random` target sizes."""
        space = draw.space
        pool = space.sample(_POOL, draw.rng)
        macs_m = draw.macs_m(pool)
        attended = []
        for target in draw.rng.permutation(_POOL)[: self.random]:
            nearest = np.argsort(np.abs(macs_m - macs_m[target]), kind="stable")[: self.candidates]
            archs = [space.decode(pool[i]) for i in nearest]
            losses = np.array(draw.losses(archs))
            attended.append(archs[int(losses.argmin() if self.attend == "best" else losses.argmax())])
        return [space.largest, space.smallest, *attended]
