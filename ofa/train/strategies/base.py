"""What every phase of a training has, whatever its strategy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ofa.core.config import Config
from ofa.space.arch import Arch, Rows
from ofa.space.search_space import SearchSpace


@dataclass(frozen=True)
class Draw:
    """What a strategy may look at when it picks the archs of a training step.

    A strategy keeps no state: the same draw gives the same archs, so a training that was stopped goes on as it was.

    Attributes:
        space: what is elastic in this phase.
        step: the step's number in the whole training, from 0.
        rng: of this step alone.
        seed: of the whole training.
        macs_m: multiply-accumulates in millions `[n]` of rows `[n, n_choices]`.
        losses: of archs on this step's batch, without learning from it.
    """

    space: SearchSpace
    step: int
    rng: np.random.Generator
    seed: int
    macs_m: Callable[[Rows], NDArray[np.float64]]
    losses: Callable[[list[Arch]], list[float]]

    def random(self, n: int) -> list[Arch]:
        """Archs drawn uniformly, independent of each other."""
        return [self.space.decode(row) for row in self.space.sample(n, self.rng)]


class Phase(Config):
    """Some epochs with one strategy."""

    epochs: int = Field(ge=1)
    """Passes over the training images."""
    lr: float | None = Field(None, gt=0)
    """If given, a schedule begins with this phase: a warm-up to this learning rate, then a cosine to `train.min_lr`, up
    to the next phase that gives one. By default the schedule goes on; the first begins with `train.lr`."""
    warmup_epochs: float | None = Field(None, ge=0)
    """Of the schedule that begins with this phase; by default none, and `train.warmup_epochs` for the first."""
    elastic: dict[str, int | Literal["all"]] | None = None
    """What may be smaller than in the largest network, as patterns of choices and how many of their largest values:
    `{"resolution": "all", "*.kernel": "all", "*.depth": 2}`. By default everything is elastic."""
    sort_channels: bool = False
    """Before the phase, sorts hidden channels so that the most important ones are those that small subnets keep."""
    ramp_epochs: float = Field(0.0, ge=0)
    """Over which the losses of all archs but the largest rise from 0 to their full weight, so that shrinking disturbs
    the largest network little at first (delayed epsilon-shrinking, arXiv 2407.06167)."""

    def archs(self, draw: Draw) -> list[Arch]:
        """The archs of one training step; those that come after the largest can learn from it."""
        raise NotImplementedError
