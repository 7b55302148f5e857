"""What all phases of a training have in common, whatever their strategy."""

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

MacsM = Callable[[Rows], NDArray[np.float64]]
"""Multiply-accumulates in millions `[n]` of rows `[n, n_choices]`, such as `ofa.macs_m(family)`."""


@dataclass(frozen=True)
class Draw:
    """What a strategy may use to pick the image size of a training step.

    A strategy keeps no state: equal draws give equal archs, so a resumed training picks the same archs as one that was
    never interrupted.

    Attributes:
        space: what is elastic in this phase.
        step: number of the step in the whole training, from 0.
        rng: generator of this step alone.
        seed: seed of the whole training.
    """

    space: SearchSpace
    step: int
    rng: np.random.Generator
    seed: int

    def random(self, n: int) -> list[Arch]:
        """Draw archs uniformly and independently."""
        return [self.space.decode(row) for row in self.space.sample(n, self.rng)]


@dataclass(frozen=True)
class BatchDraw(Draw):
    """What a strategy may use to pick the archs of a training step.

    Attributes:
        macs_m: multiply-accumulates of rows of `space`.
        losses: computes the losses of archs on this step's batch, without gradients.
    """

    macs_m: MacsM
    losses: Callable[[list[Arch]], list[float]]


class Phase(Config):
    """Some epochs with one strategy."""

    epochs: int = Field(ge=1, le=100_000)
    """Passes over the training images."""
    lr: float | None = Field(None, gt=0)
    """Starts a new schedule: a warm-up to this learning rate, then a cosine to `train.min_lr`, up to the next phase
    that sets one. By default the schedule continues; the first one starts from `train.lr`."""
    warmup_epochs: float | None = Field(None, ge=0)
    """Warm-up of the schedule that starts with this phase; by default 0, and `train.warmup_epochs` for the first."""
    elastic: dict[str, int | Literal["all"]] | None = None
    """Choices that are elastic, as patterns with the number of their largest values:
    `{"resolution": "all", "*.kernel": "all", "*.depth": 2}`. By default everything is elastic."""
    sort_channels: bool = False
    """Sorts hidden channels by importance before the phase, so that small subnets keep the most important ones."""
    ramp_epochs: float = Field(0.0, ge=0)
    """Epochs over which the losses of all archs but the largest rise from 0 to full weight, so that shrinking disturbs
    the largest network little at first (delayed epsilon-shrinking, arXiv 2407.06167)."""

    def resolution(self, draw: Draw) -> int:
        """Return the image size in pixels at which a step's batch is loaded: the largest that its archs need."""
        return int(draw.space.largest["resolution"])

    def archs(self, draw: BatchDraw) -> list[Arch]:
        """Return the archs of a training step; those that come after the largest can learn from it."""
        raise NotImplementedError
