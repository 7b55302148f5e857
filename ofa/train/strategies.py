"""Strategies: which archs a training step runs. Each is a kind of phase, with its settings and no state."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from ofa.core.config import Config
from ofa.space.arch import Arch, Rows
from ofa.space.search_space import SearchSpace

MacsM = Callable[[Rows], NDArray[np.float64]]
"""Multiply-accumulates in millions `[n]` of rows `[n, n_choices]`, such as `ofa.macs_m(family)`."""
_PARETO_POOL = 256
"""Random archs from which `Pareto` takes those nearest to a target size."""
_SPREAD_POOL, _TILT = 256, 2.5
"""Random archs from which `Spread` takes those nearest to its targets, and how much they prefer one end of choices."""


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

    loads_smaller: ClassVar[bool] = False
    """Whether some batches are loaded at a smaller resolution than the largest."""

    def resolution(self, draw: Draw) -> int:
        """Return the image size in pixels at which a step's batch is loaded: the largest that its archs need."""
        return int(draw.space.largest["resolution"])

    def archs(self, draw: BatchDraw) -> list[Arch]:
        """Return the archs of a training step; those that come after the largest can learn from it."""
        raise NotImplementedError

    def images(self, i: int) -> slice:  # noqa: ARG002  # for subclasses
        """Return which images of the batch the arch at position i of `archs` is trained on: all."""
        return slice(None)


class Full(Phase):
    """Trains the largest network alone (once-for-all, arXiv 1908.09791, 3.3)."""

    strategy: Literal["full"]

    def archs(self, draw: Draw) -> list[Arch]:
        """Return the largest arch."""
        return [draw.space.largest]


class Sandwich(Phase):
    """Trains the largest, the smallest and random archs (arXiv 1903.05134, 3.2; BigNAS, arXiv 2003.11142, 3.1)."""

    strategy: Literal["sandwich"]
    random: int = Field(2, ge=0, le=16)
    """Random archs that a step trains beside the largest and the smallest."""

    def archs(self, draw: Draw) -> list[Arch]:
        """Return the largest first, so that the others can learn from it."""
        space = draw.space
        return [space.largest, space.smallest, *map(space.decode, space.sample(self.random, draw.rng))]


class Uniform(Phase):
    """Trains random archs of one image size (AutoFormer, arXiv 2107.00651, 3.2; once-for-all, 1908.09791, 3.3)."""

    strategy: Literal["uniform"]
    subnets: int = Field(1, ge=1, le=16)
    """Archs that a step trains."""

    loads_smaller = True

    def resolution(self, draw: Draw) -> int:
        """Return the one resolution of the step's archs."""
        return int(self.archs(draw)[0]["resolution"])

    def archs(self, draw: Draw) -> list[Arch]:
        """Return archs drawn uniformly, all with the resolution of the first."""
        rows, column = draw.space.sample(self.subnets, draw.rng), draw.space.column("resolution")
        rows[:, column] = rows[0, column]
        return [draw.space.decode(row) for row in rows]


class Fair(Phase):
    """Trains each value of each choice once in every step (FairNAS, arXiv 1907.01845).

    A step has as many archs as the largest choice has values. A choice with fewer values continues with its next
    permutation, so the counts of its values never differ by more than one.
    """

    strategy: Literal["fair"]

    loads_smaller = True

    def resolution(self, draw: Draw) -> int:
        """Return the largest resolution among the step's archs."""
        return max(int(arch["resolution"]) for arch in self.archs(draw))

    def archs(self, draw: Draw) -> list[Arch]:
        """Return the archs that take the next entries of each choice's endless list of permutations."""
        n_values = [len(choice.values) for choice in draw.space.choices]
        first = draw.step * max(n_values)
        rows = np.empty((max(n_values), len(n_values)), dtype=np.int64)
        for column, n in enumerate(n_values):
            for i in range(len(rows)):
                turn, position = divmod(first + i, n)
                rows[i, column] = np.random.default_rng((draw.seed, column, turn)).permutation(n)[position]
        return [draw.space.decode(row) for row in draw.space.canonical(rows)]


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
        pool = space.sample(_PARETO_POOL, draw.rng)
        macs_m = draw.macs_m(pool)
        attended = []
        for target in draw.rng.permutation(_PARETO_POOL)[: self.random]:
            nearest = np.argsort(np.abs(macs_m - macs_m[target]), kind="stable")[: self.candidates]
            archs = [space.decode(pool[i]) for i in nearest]
            losses = np.array(draw.losses(archs))
            attended.append(archs[int(losses.argmin() if self.attend == "best" else losses.argmax())])
        return [space.largest, space.smallest, *attended]


class Spread(Phase):
    """Trains archs at even distances in log multiply-accumulates, so that each size learns as much as any other.

    Random archs are nearly all of middling size. The range of sizes is cut into equal parts, in each of which one
    target is drawn; the arch nearest to it is trained. The largest and the smallest are trained as often as others, so
    the teacher should be `average`.
    """

    strategy: Literal["spread"]
    subnets: int = Field(4, ge=1, le=64)
    """Archs that a step trains."""
    parts: int = Field(1, ge=1, le=64)
    """Equal parts of the batch, which the archs take by turns: of 4 archs and 2 parts, each learns from half of the
    images, and a step costs half. Losses are weighted by the share of the images."""

    @model_validator(mode="after")
    def _parts_have_archs(self) -> "Spread":
        if self.subnets % self.parts:
            raise ValueError(f"parts = {self.parts} does not divide subnets = {self.subnets}; each needs as many archs")
        return self

    def archs(self, draw: BatchDraw) -> list[Arch]:
        """Return one arch for each part of the range of sizes, the largest arch first."""
        space = draw.space
        pool = np.concatenate([space.rows([space.smallest, space.largest]), _of_all_sizes(space, draw.rng)])
        log_macs = np.log(draw.macs_m(pool))
        positions = (np.arange(self.subnets)[::-1] + draw.rng.random(self.subnets)) / self.subnets
        targets = log_macs[0] + (log_macs[1] - log_macs[0]) * positions
        return [space.decode(pool[np.abs(log_macs - target).argmin()]) for target in targets]

    def images(self, i: int) -> slice:
        """Return the part of the batch of the arch at position i."""
        return slice(i % self.parts, None, self.parts)


def _of_all_sizes(space: SearchSpace, rng: np.random.Generator) -> Rows:
    """Return random archs, each of which prefers small or large values in all of its choices, more or less so."""
    tilt = rng.uniform(-_TILT, _TILT, (_SPREAD_POOL, 1))
    columns = []
    for choice in space.choices:
        weights = np.exp(tilt * np.linspace(-1, 1, len(choice.values)))
        bounds = np.cumsum(weights, axis=1) / weights.sum(axis=1, keepdims=True)
        columns.append((rng.random((_SPREAD_POOL, 1)) > bounds[:, :-1]).sum(axis=1))
    return space.canonical(np.stack(columns, axis=1).astype(np.int64))


AnyPhase = Annotated[Full | Sandwich | Uniform | Fair | Pareto | Spread, Field(discriminator="strategy")]
"""A phase of any strategy, told apart by its key `strategy`."""
