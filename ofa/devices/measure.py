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
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Self

import numpy as np
from pydantic import Field, model_validator

from ofa.core.config import Config
from ofa.core.errors import DeviceError
from ofa.devices.device import Device, Host, HostLost, Model, Runner, Timing
from ofa.devices.statistic import Counted, Samples, Statistic, all_bursts

_REFERENCE_EVERY = 8


_PASSES = 4
"""Over all groups, where there are several."""


_WARMUP_RUNS = 5


_DOUBTFUL_SHARE = 0.1
"""Of the latencies that may be less sure than wanted before the device is called noisy."""


class MeasureConfig(Config):
    """How precisely latencies are measured."""

    precision_percent: float = Field(1.0, gt=0)
    """Standard error wanted of each latency."""
    min_rounds: int = Field(24, ge=2)
    """How often every model is visited at least."""
    max_rounds: int = Field(60, ge=2)
    """How often at most."""
    burst_ms: float = Field(3.0, gt=0)
    """About how long each visit lasts; a slow model is run once per visit."""
    bursts: Counted = "auto"
    """Which count: all, or the fastest eighth of each model's, when nobody disturbed; "auto" takes those that repeat
    better, from 30 models on."""
    weights_mib: float = Field(2048.0, gt=0)
    """Of the models that one place holds at once; ONNX Runtime takes 1.3 times as much memory, OpenVINO 3.3 times.
    Where there are more, they are measured in groups, several times over."""

    @model_validator(mode="after")
    def _enough_rounds(self) -> Self:
        if self.max_rounds < self.min_rounds:
            raise ValueError(f"max_rounds = {self.max_rounds} is below min_rounds = {self.min_rounds}; raise it")
        return self


DEFAULT = MeasureConfig()


class NoisyDevice(UserWarning):
    """A device whose timings vary too much to be trusted."""


def measure(
    device: Device,
    models: Mapping[str, Model],
    reference: Model,
    rng: np.random.Generator,
    config: MeasureConfig = DEFAULT,
    samples: Samples | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Timing]:
    """Times models in interleaved rounds.

    Args:
        device: what to measure on.
        models: by name.
        reference: timed along; best as slow as the models are.
        rng: draws the orders.
        config: how precisely.
        samples: what is known already, which is added to; only models that are missing or doubtful are measured.
        on_progress: called with what is done and what there is to do, models loaded and least visits counted alike,
            after each model that is loaded and each round, from the thread of a place.

    Raises:
        DeviceError: no place is left.
    """
    samples = {} if samples is None else samples
    places = list(device.hosts)
    work = _Work(models, reference, config, samples, on_progress)
    todo = [name for name in models if not work.is_done(name, config.min_rounds)]
    work.loaded.update(set(models) - set(todo))
    while todo:
        if not places:
            raise DeviceError(f"device {device.name!r} is lost, {len(todo)} of {len(models)} models are not measured")
        shares = [todo[i :: len(places)] for i in range(len(places))]
        with ThreadPoolExecutor(len(places)) as pool:
            kept = list(pool.map(work.at, places, shares, rng.spawn(len(places))))
        todo = [name for share, is_kept in zip(shares, kept, strict=True) if not is_kept for name in share]
        places = [place for place, is_kept in zip(places, kept, strict=True) if is_kept]
    statistic = Statistic.of({name: samples[name] for name in models}, config.bursts)
    errors_percent = [statistic.error_percent(samples[name]) for name in models]
    doubtful = [error for error in errors_percent if error > config.precision_percent]
    if len(doubtful) > _DOUBTFUL_SHARE * len(models):
        warnings.warn(
            f"{len(doubtful)} of {len(models)} latencies are less sure than {config.precision_percent:g}%, the worst "
            f"to {max(doubtful):.1f}%: the device is busy; close other programs and measure again",
            NoisyDevice,
            stacklevel=2,
        )
    return {name: statistic(samples[name]) for name in models}


@dataclass
class _Work:
    """What several places share."""

    models: Mapping[str, Model]
    reference: Model
    config: MeasureConfig
    samples: Samples
    on_progress: Callable[[int, int], None]
    loaded: set[str] = field(default_factory=set)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._statistic = Statistic.of(self.samples, self.config.bursts)
        self._sessions = itertools.count(1 + max((session for _, _, session in all_bursts(self.samples)), default=-1))

    def is_done(self, name: str, min_rounds: int) -> bool:
        """Whether a model was visited so often, and is known precisely."""
        bursts = self.samples.get(name, ())
        return len(bursts) >= min_rounds and self._statistic.error_percent(bursts) <= self.config.precision_percent

    def at(self, place: Host, names: list[str], rng: np.random.Generator) -> bool:
        """Visits some models at one place until all are done; whether the place is still there."""
        config = self.config
        try:
            clock = _Burst(place.load(self.reference), config.burst_ms)
            fits = sum(self.models[name].weights_mib for name in names) <= config.weights_mib
            n_passes = 1 if fits else _PASSES
            for done in range(1, n_passes + 1):
                least = math.ceil(config.min_rounds * done / n_passes)
                todo = [name for name in names if not self.is_done(name, least)]
                for group in _groups([todo[i] for i in rng.permutation(len(todo))], self.models, config.weights_mib):
                    bursts = {name: self._loaded(place, name) for name in group}
                    session = next(self._sessions)
                    for _ in range(math.ceil(config.max_rounds / n_passes)):
                        left = [name for name in group if not self.is_done(name, least)]
                        if not left:
                            break
                        self._add(left, _round([bursts[name] for name in left], clock, rng), session)
        except HostLost:
            return False
        return True

    def _loaded(self, place: Host, name: str) -> _Burst:
        burst = _Burst(place.load(self.models[name]), self.config.burst_ms)
        with self.lock:
            self.loaded.add(name)
            self._tell()
        return burst

    def _add(self, names: list[str], found: list[tuple[float, float]], session: int) -> None:
        with self.lock:
            for name, (took, around) in zip(names, found, strict=True):
                self.samples.setdefault(name, []).append((took, around, session))
            self._statistic = Statistic.of(self.samples, self.config.bursts)
            self._tell()

    def _tell(self) -> None:
        least = self.config.min_rounds
        visits = sum(min(len(self.samples.get(name, ())), least) for name in self.models)
        self.on_progress(len(self.loaded) + visits, len(self.models) * (1 + least))


def _groups(names: list[str], models: Mapping[str, Model], weights_mib: float) -> Iterator[list[str]]:
    """Parts of the models, each with as many as fit into so much memory, or one."""
    group: list[str] = []
    filled = 0.0
    for name in names:
        size = models[name].weights_mib
        if group and filled + size > weights_mib:
            yield group
            group, filled = [], 0.0
        group.append(name)
        filled += size
    if group:
        yield group


@dataclass
class _Burst:
    """Runs a model for about so long; first once to know how often that is."""

    runner: Runner
    burst_ms: float

    def __post_init__(self) -> None:
        self.n = max(1, round(self.burst_ms / max(float(np.median(self.runner(_WARMUP_RUNS))), 1e-3)))

    def __call__(self) -> float:
        return float(np.median(self.runner(self.n)))


def _round(bursts: list[_Burst], clock: _Burst, rng: np.random.Generator) -> list[tuple[float, float]]:
    """A visit to each, in random order: how long it took, and the reference around that time."""
    order = rng.permutation(len(bursts))
    took, ticks = np.zeros(len(bursts)), []
    for position, index in enumerate(order):
        if position % _REFERENCE_EVERY == 0:
            ticks.append(clock())
        took[index] = bursts[index]()
    ticks.append(clock())
    around = np.zeros(len(bursts))
    for position, index in enumerate(order):
        group = position // _REFERENCE_EVERY
        around[index] = np.median(ticks[max(0, group - 2) : group + 4])
    return list(zip(took.tolist(), around.tolist(), strict=True))
