"""The plan of a training: which phase and which elastic space each epoch has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ofa.space.search_space import SearchSpace
from ofa.train.strategies import AnyPhase

_ALL = 10**9


@dataclass(frozen=True)
class PhaseSpan:
    """A phase in the course of the training.

    Attributes:
        phase: its settings.
        space: what is elastic in it.
        first_step: number of its first step in the whole training.
    """

    phase: AnyPhase
    space: SearchSpace
    first_step: int

    def loss_weight(self, step: int, steps_per_epoch: int) -> float:
        """Return the weight of the losses of all archs but the largest, which rises over `ramp_epochs`."""
        ramp_steps = self.phase.ramp_epochs * steps_per_epoch
        return min(1.0, (step - self.first_step + 1) / ramp_steps) if ramp_steps else 1.0


class Plan:
    """The phases of a training, epoch by epoch.

    Args:
        phases: from the recipe, in order.
        space: the family's.
        steps_per_epoch: optimizer steps in an epoch.

    Raises:
        SpaceError: a pattern of `elastic` matches no choice.
    """

    def __init__(self, phases: Sequence[AnyPhase], space: SearchSpace, steps_per_epoch: int) -> None:
        self.steps_per_epoch = steps_per_epoch
        self.epochs: list[PhaseSpan] = []
        for phase in phases:
            span = PhaseSpan(phase, _elastic(space, phase), first_step=len(self.epochs) * steps_per_epoch)
            self.epochs += [span] * phase.epochs

    @property
    def total_steps(self) -> int:
        """Number of optimizer steps in the training."""
        return self.steps_per_epoch * len(self.epochs)

    def starts_phase(self, epoch: int) -> bool:
        """Return whether an epoch is the first of its phase."""
        return epoch == 0 or self.epochs[epoch] is not self.epochs[epoch - 1]

    def starts_shrinking(self, epoch: int) -> bool:
        """Return whether an epoch is the first of a phase that shrinks what a phase `full` trained, or of the first."""
        after_full = epoch == 0 or self.epochs[epoch - 1].phase.strategy == "full"
        return self.starts_phase(epoch) and self.epochs[epoch].phase.strategy != "full" and after_full

    def trained_space(self, epoch: int) -> SearchSpace | None:
        """Return what was elastic in the last phase before an epoch that trained more than the largest network."""
        elastic = [span.space for span in self.epochs[:epoch] if span.phase.strategy != "full"]
        return elastic[-1] if elastic else None


def _elastic(space: SearchSpace, phase: AnyPhase) -> SearchSpace:
    """Return what is elastic in a phase."""
    if phase.elastic is None or phase.strategy == "full":
        return space
    return space.keep_largest({pattern: _ALL if n == "all" else n for pattern, n in phase.elastic.items()})
