"""How bursts of runs become a latency: which bursts count, and relative to which reference."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from ofa.devices.device import Timing


class Burst(NamedTuple):
    """A few runs of one model in a row: their median, and that of the reference network around them.

    The models of a session were loaded together and visited in the same rounds.
    """

    run_ms: float
    reference_ms: float
    session: int


Samples = dict[str, list[Burst]]
"""The bursts of each model, by its name."""

Selection = Literal["auto", "all", "fastest"]
"""Which bursts count; see `MeasureConfig.bursts`."""

_FASTEST_SHARE = 1 / 8
_MIN_BURSTS = 16  # models with fewer bursts have no say in which selection is better
_MIN_MODELS, _MAX_MODELS = 30, 100  # models that are compared for that decision
_CLEARLY_BETTER = 0.8  # ratio of disagreements below which the fastest bursts are preferred to all


@dataclass(frozen=True)
class LatencyEstimator:
    """Estimator of latencies from bursts, the same one for all models of a device.

    On a quiet machine, the median over all bursts, each relative to the reference around it, varies least. A machine
    that other programs use as well changes its speed within a burst, faster than any reference can follow; there the
    fastest bursts, which ran undisturbed, repeat better.

    Attributes:
        undisturbed_ms: median of the fastest eighth of the reference's times in each session, the same statistic that
            a model gets: where the machine is never undisturbed for long, a ratio of two statistics would depend on
            the hour.
        fastest: whether only the fastest eighth of a model's bursts counts, relative to `undisturbed_ms`; otherwise
            all bursts count, each relative to its own `Burst.reference_ms`.
        reference_ms: time of the reference that latencies are given for; by default that of these bursts: its median
            over all, or the mean of `undisturbed_ms`.
    """

    undisturbed_ms: Mapping[int, float]
    fastest: bool
    reference_ms: float

    @classmethod
    def fit(cls, samples: Samples, selection: Selection = "auto", *, reference_ms: float | None = None) -> Self:
        """Choose which bursts count: with "auto" the fastest if odd and even visits clearly agree better on them.

        With the `reference_ms` of an earlier measurement, latencies are those at the speed that the device had then.
        """
        references_ms = [burst.reference_ms for bursts in samples.values() for burst in bursts]
        sessions: dict[int, list[float]] = {}
        for burst in itertools.chain.from_iterable(samples.values()):
            sessions.setdefault(burst.session, []).append(burst.reference_ms)
        undisturbed_ms = {session: float(np.median(_fastest(times_ms))) for session, times_ms in sessions.items()}
        median_ms = float(np.median(references_ms)) if references_ms else 1.0
        fastest_ms = float(np.mean(list(undisturbed_ms.values()))) if undisturbed_ms else 1.0
        by_all = cls(undisturbed_ms, False, reference_ms or median_ms)
        by_fastest = cls(undisturbed_ms, True, reference_ms or fastest_ms)
        models = [bursts for bursts in samples.values() if len(bursts) >= _MIN_BURSTS]
        if selection == "auto" and len(models) >= _MIN_MODELS:
            models = models[:: math.ceil(len(models) / _MAX_MODELS)]
            better = by_fastest._disagreement(models) < _CLEARLY_BETTER * by_all._disagreement(models)
            return by_fastest if better else by_all
        return by_fastest if selection == "fastest" else by_all

    def __call__(self, bursts: Sequence[Burst]) -> Timing:
        """Return the timing of one model from its bursts, of which there must be at least one."""
        latencies_ms = self._latencies_ms(bursts)
        low_ms, median_ms, high_ms = np.percentile(latencies_ms, (25, 50, 75))
        return Timing(float(median_ms), float(high_ms - low_ms), len(latencies_ms))

    def error_percent(self, bursts: Sequence[Burst]) -> float:
        """Return the relative standard error of one model's latency, in percent."""
        return 100 * self(bursts).relative_error(self.fastest)

    def _latencies_ms(self, bursts: Sequence[Burst]) -> NDArray[np.float64]:
        """Return the latencies of the bursts that count, corrected for drift."""
        if not self.fastest:
            return self.reference_ms * np.array([burst.run_ms / burst.reference_ms for burst in bursts])
        return self.reference_ms * _fastest([burst.run_ms / self.undisturbed_ms[burst.session] for burst in bursts])

    def _disagreement(self, models: Sequence[Sequence[Burst]]) -> float:
        """Return the median over models of the relative difference between odd and even visits."""
        pairs = [[self(bursts[start::2]).median_ms for start in (0, 1)] for bursts in models]
        return float(np.median([abs(math.log(odd / even)) for odd, even in pairs]))


def _fastest(values: Sequence[float]) -> NDArray[np.float64]:
    """Return the smallest eighth of some values, at least one of them, in order."""
    return np.sort(values)[: math.ceil(_FASTEST_SHARE * len(values))]
