"""The plan of a training: which phase and which elastic space each epoch has."""

from collections.abc import Sequence
from dataclasses import dataclass

from ofa.space.search_space import SearchSpace
from ofa.train.strategies import AnyPhase

_ALL = 10**9


@dataclass(frozen=True)
class PhaseSpan:
    """A phase, what is elastic in it, and the number of its first step in the whole training."""

    phase: AnyPhase
    space: SearchSpace
    first_step: int

    def loss_weight(self, step: int, steps_per_epoch: int) -> float:
        """Return the weight of the losses of all archs but the largest, which rises over `ramp_epochs`."""
        ramp_steps = self.phase.ramp_epochs * steps_per_epoch
        return min(1.0, (step - self.first_step + 1) / ramp_steps) if ramp_steps else 1.0


class Plan:
    """The phases of a training in the space of a family, epoch by epoch.

    Raises:
        SpaceError: a pattern of `elastic` matches no choice.
    """

    def __init__(self, phases: Sequence[AnyPhase], space: SearchSpace, steps_per_epoch: int) -> None:
        self.steps_per_epoch = steps_per_epoch
        self.epochs: list[PhaseSpan] = []
        for phase in phases:
            elastic = space
            if phase.elastic is not None and phase.strategy != "full":
                elastic = space.keep_largest({p: _ALL if n == "all" else n for p, n in phase.elastic.items()})
            self.epochs += [PhaseSpan(phase, elastic, len(self.epochs) * steps_per_epoch)] * phase.epochs

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
