"""How latencies are measured, on whatever device.

- Rounds: each visits every model once, in a new random order, for a burst of runs of about `burst_ms` after one that is
  not timed. So a drift of the machine falls on all models alike.
- Drift: a reference network is timed along, after every few models; a burst counts relative to it.
- Robust: a burst counts by its median, a model by the median over its bursts; or, where others use the machine now and
  then, by the median over the fastest eighth of its bursts, if odd and even visits agree better on that
  (`Statistic`).
- Groups: models that do not fit into memory at once are measured in groups, several times over with other groups each
  time: a place whose clock or whose other users changed meanwhile favors small models over large ones, or the
  reverse, which no reference takes out. (AutoFormer-tiny on 2 threads, in three groups one after another: predictions
  were off by 2.2 %; in one group by 1.1 %.)
- Stop: a model is visited until the standard error of its median is what is wanted, at most `max_rounds` times.

A device may be several places, such as phones of one kind. They share the models, and the models of a place that is
lost go to the others.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from numpy.typing import NDArray

from ofa.devices.device import Timing

Burst = tuple[float, float, int]
"""The median of its runs in ms, how long the reference took around it, and the number of the session it was in: models
of one session were visited in the same rounds."""


Samples = dict[str, list[Burst]]
"""Of each model: its bursts."""


Counted = Literal["auto", "all", "fastest"]


_FASTEST_SHARE = 1 / 8


_ENOUGH = 16
"""Visits from which on the fastest of a model are looked at."""


_CLEARLY = 0.8
"""So much better the fastest bursts must agree than all do."""


_FEWEST, _MOST = 30, 100
"""Models by which that is decided, at least and at most."""


@dataclass(frozen=True)
class Statistic:
    """How bursts become a latency: which of them count, and relative to what.

    Where only one program runs, the median over all bursts, each relative to the reference around it, varies least.
    A machine that others use too has two speeds or more, and changes between them within a burst; then the fastest
    bursts, when nobody disturbed, repeat better, and say more of the model.

    Attributes:
        around_ms: what the reference took, the median over all bursts.
        undisturbed_ms: what it took at its fastest, of each session.
        fastest: whether the fastest bursts count, relative to that, or all, relative to what is around them.
    """

    around_ms: float
    undisturbed_ms: Mapping[int, float]
    fastest: bool

    @classmethod
    def of(cls, samples: Samples, bursts: Counted = "auto") -> Self:
        """The same for all models; see `MeasureConfig.bursts`."""
        undisturbed: dict[int, float] = {}
        for _, around, session in all_bursts(samples):
            undisturbed[session] = min(around, undisturbed.get(session, math.inf))
        around_ms = float(np.median([around for _, around, _ in all_bursts(samples)])) if samples else 1.0
        every, fastest = (cls(around_ms, undisturbed, which) for which in (False, True))
        often = [some for some in samples.values() if len(some) >= _ENOUGH]
        if bursts == "auto" and len(often) >= _FEWEST:
            compared = often[:: math.ceil(len(often) / _MOST)]
            return fastest if fastest._disagreement(compared) < _CLEARLY * every._disagreement(compared) else every
        return fastest if bursts == "fastest" else every

    def __call__(self, bursts: Sequence[Burst]) -> Timing:
        """Of the bursts of one model, one or more."""
        counted_ms = self._counted_ms(bursts)
        low, median, high = np.percentile(counted_ms, (25, 50, 75))
        return Timing(float(median), float(high - low), len(counted_ms))

    def error_percent(self, bursts: Sequence[Burst]) -> float:
        """Standard error of a model's latency."""
        return 100 * self(bursts).error(self.fastest)

    def _counted_ms(self, bursts: Sequence[Burst]) -> NDArray[np.float64]:
        if not self.fastest:
            return self.around_ms * np.array([took / around for took, around, _ in bursts])
        ratios = np.sort([took / self.undisturbed_ms[session] for took, _, session in bursts])
        scale = float(np.mean(list(self.undisturbed_ms.values())))
        return scale * ratios[: math.ceil(_FASTEST_SHARE * len(bursts))]

    def _disagreement(self, models: Sequence[Sequence[Burst]]) -> float:
        """How far odd and even visits are apart, relative, the median over models."""
        pairs = [[self(bursts[start::2]).median_ms for start in (0, 1)] for bursts in models]
        return float(np.median([abs(math.log(odd / even)) for odd, even in pairs]))


def all_bursts(samples: Samples) -> Iterator[Burst]:
    """The bursts of all models."""
    return itertools.chain.from_iterable(samples.values())
