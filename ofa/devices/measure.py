"""The protocol that measures latencies on any device; `latency_luts/README.md` explains why it is as it is."""

import itertools
import math
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from time import monotonic
from typing import NamedTuple, Self

import numpy as np
from pydantic import Field, model_validator

from ofa.core.config import Config
from ofa.core.errors import DeviceError
from ofa.devices.device import Device, Host, HostLost, Model, OpenDevice, Runner, Timing
from ofa.devices.estimator import Burst, LatencyEstimator, Samples, Selection

_REFERENCE_EVERY = 8  # models between two bursts of the reference
_PASSES = 4  # over all groups of models, if there are several
_FIRST_VISITS = 8  # to each model, where time is limited; more only after all models had as many
_FIRST_GROUP = 32  # models that are loaded at once in that pass
_WARMUP_RUNS = 5
_LOADING_VISITS = 16  # to a model, which take about as long as exporting and loading it: for times that are left
_MAX_RETURNS = 100  # of hosts that were lost, to a device whose hosts come and go
_NOISY_SHARE = 0.1  # of latencies that may be less precise than required before the device is called noisy


class MeasureConfig(Config):
    """How precisely latencies are measured."""

    precision_percent: float = Field(1.0, gt=0)
    """Required relative standard error of each latency."""
    min_rounds: int = Field(24, ge=2, le=10_000)
    """Least number of visits to each model."""
    max_rounds: int = Field(60, ge=2, le=10_000)
    """Largest number of visits to each model."""
    burst_ms: float = Field(3.0, gt=0, le=10_000)
    """Approximate duration of a visit; a slow model runs once per visit."""
    bursts: Selection = "auto"
    """Which bursts count: "all" of a model's, or its "fastest" eighth, which ran undisturbed; "auto" chooses the
    selection that repeats better, from 30 models on."""
    weights_mib: float = Field(2048.0, gt=0)
    """Memory for the weights of models that a host holds at once; ONNX Runtime takes 1.3 times as much, OpenVINO 3.3
    times. More models than that are measured in groups, in several passes."""

    @model_validator(mode="after")
    def _check_rounds(self) -> Self:
        if self.max_rounds < self.min_rounds:
            raise ValueError(f"max_rounds = {self.max_rounds} is below min_rounds = {self.min_rounds}; raise it")
        return self


class NoisyDevice(UserWarning):
    """The timings of a device vary too much to be trusted."""


def measure(
    device: Device,
    models: Mapping[str, Model],
    reference: Model,
    rng: np.random.Generator,
    *,
    config: MeasureConfig | None = None,
    samples: Samples | None = None,
    reference_ms: float | None = None,
    seconds: float | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Timing]:
    """Measure the latency of each model, by name, in interleaved rounds whose order `rng` draws.

    The hosts of the device share the models; those of a host that is lost go to the others, and to those that come
    while it is an `OpenDevice`. The `reference`, a network
    best about as slow as the models, is timed after every few of them to correct for drift. New bursts are added to
    earlier `samples`; models that are precise already are not measured.

    A computer may be twice as slow an hour later. With the `reference_ms` of an earlier measurement, latencies are
    given at the speed that the device had then, so that those of both can be compared.

    After so many `seconds`, no model is loaded or visited any more, and those without a few visits are left out of the
    result. So name the models first that tell most: they are taken in their order, in groups, and visited a few times;
    if time is left then, they are visited as often as without a limit.

    `on_progress(done, total)` is called after each loaded model and each round, in the thread of a host; both numbers
    count required visits, of which a loaded model is worth 16, or with a limit seconds.

    An error of one host, or Ctrl-C, stops the others after their burst.

    Raises:
        DeviceError: a model cannot be run, a time is not positive, or all hosts are lost.
    """
    config, samples = config or MeasureConfig(), {} if samples is None else samples
    hosts = list(device.hosts)

    def report(done: int, total: int) -> None:
        on_progress(done, total)
        if isinstance(device, OpenDevice):
            device.show_progress(done, total)

    campaign = _Campaign(models, reference, config, samples, report, seconds)
    todo, returns = [name for name in models if name not in campaign.loaded], _MAX_RETURNS
    while todo and not campaign.is_over():
        if not hosts:
            raise DeviceError(
                f"device {device.name!r} is lost, {len(todo)} of {len(models)} models are not measured; "
                "reconnect it and measure again"
            )
        shares = [todo[i :: len(hosts)] for i in range(len(hosts))]
        with ThreadPoolExecutor(len(hosts)) as pool, campaign.stopping():
            alive = list(pool.map(campaign.run_on, hosts, shares, rng.spawn(len(hosts))))
        todo = [name for share, is_alive in zip(shares, alive, strict=True) if not is_alive for name in share]
        hosts = list(itertools.compress(hosts, alive))
        if todo and isinstance(device, OpenDevice) and returns:
            hosts, returns = list(device.wait_for_hosts()), returns - 1
    if seconds is not None:
        models = {name: models[name] for name in models if campaign.is_visited(name)}
    estimator = LatencyEstimator.fit({name: samples[name] for name in models}, config.bursts, reference_ms=reference_ms)
    errors_percent = [estimator.error_percent(samples[name]) for name in models]
    n_noisy = sum(error > config.precision_percent for error in errors_percent)
    if seconds is None and n_noisy > _NOISY_SHARE * len(models):
        warnings.warn(
            f"{n_noisy} of {len(models)} latencies have a standard error above {config.precision_percent:g}%, up to "
            f"{max(errors_percent):.1f}%: the device is busy; close other programs and measure again",
            NoisyDevice,
            stacklevel=2,
        )
    return {name: estimator(samples[name]) for name in models}


class _StoppedError(Exception):
    """The measurement ends early."""


class _BurstTimer:
    """Times bursts of a loaded model that last about `burst_ms`, after a warm-up that shows how many runs that is.

    It raises `_StoppedError` once the event is set.
    """

    def __init__(self, runner: Runner, burst_ms: float, stopped: threading.Event) -> None:
        self._runner, self._n_runs, self._stopped = runner, _WARMUP_RUNS, stopped
        run_ms = self()
        self._n_runs = max(1, round(burst_ms / max(run_ms, 1e-3)))
        self.seconds = self._n_runs * run_ms / 1000
        """How long a burst takes, about."""

    def __call__(self) -> float:
        """Return the median time of the runs of one burst, in milliseconds."""
        if self._stopped.is_set():
            raise _StoppedError
        run_ms = float(np.median(self._runner(self._n_runs)))
        if not 0 < run_ms < math.inf:
            raise DeviceError(f"a run of a model took {run_ms:g} ms, which is no time; check the device's clock")
        return run_ms


class _Pass(NamedTuple):
    """Visits to all models of a host, in groups that are loaded at once.

    Attributes:
        visits: how many a model needs, of this pass and those before.
        precision_percent: standard error that its latency needs.
        rounds: visits to a model in this pass, at most.
        in_order: whether models come in their order, in small groups, because time is limited.
    """

    visits: int
    precision_percent: float
    rounds: int
    in_order: bool = False


@dataclass
class _Campaign:
    """The state of a measurement, shared by the threads of its hosts."""

    models: Mapping[str, Model]
    reference: Model
    config: MeasureConfig
    samples: Samples
    on_progress: Callable[[int, int], None]
    seconds: float | None

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._start = monotonic()
        self._first_visits = min(_FIRST_VISITS, self.config.min_rounds)
        self._estimator = LatencyEstimator.fit(self.samples, self.config.bursts)
        sessions = [burst.session for bursts in self.samples.values() for burst in bursts]
        self._sessions = itertools.count(max(sessions, default=-1) + 1)
        last = _Pass(self.config.min_rounds, self.config.precision_percent, self.config.max_rounds)
        self.loaded = {name for name in self.models if self.is_done(name, last)}

    @contextmanager
    def stopping(self) -> Iterator[None]:
        """Stop the threads of all hosts when an exception, such as Ctrl-C, leaves the block."""
        try:
            yield
        except BaseException:
            self._stopped.set()
            raise

    def is_over(self, needed_s: float = 0.0) -> bool:
        """Return whether less time than that is left."""
        return self.seconds is not None and monotonic() - self._start + needed_s >= self.seconds

    def is_visited(self, name: str) -> bool:
        """Return whether a model has the few visits that it needs where time is limited."""
        return len(self.samples.get(name, ())) >= self._first_visits

    def is_done(self, name: str, one: _Pass) -> bool:
        """Return whether a model has the visits and the precise latency that a pass asks for."""
        bursts = self.samples.get(name, ())
        return len(bursts) >= one.visits and self._estimator.error_percent(bursts) <= one.precision_percent

    def run_on(self, host: Host, names: list[str], rng: np.random.Generator) -> bool:
        """Measure some models on one host; return whether the host is still alive."""
        with self.stopping(), suppress(HostLost, _StoppedError):
            for one in self._passes(names):
                todo = [name for name in names if not self.is_done(name, one)]
                order = todo if one.in_order else [todo[i] for i in rng.permutation(len(todo))]
                size = _FIRST_GROUP if one.in_order else None
                for group in _groups(order, self.models, self.config.weights_mib, size):
                    if self.is_over():
                        return True
                    # Loaded for each group: the same network is some percent faster or slower when loaded again.
                    reference = self._timer(host, self.reference)
                    timers, session = self._load(host, group), next(self._sessions)
                    for _ in range(one.rounds):
                        due = {name: timer for name, timer in timers.items() if not self.is_done(name, one)}
                        if not due or (self.is_over() and not one.in_order):  # in order, time for visits was kept
                            break
                        self._add(_visit(due, reference, session, rng))
            return True
        return False

    def _passes(self, names: list[str]) -> Iterator[_Pass]:
        config = self.config
        if self.seconds is not None:
            yield _Pass(self._first_visits, math.inf, self._first_visits, in_order=True)
        total_mib = sum(self.models[name].weights_mib for name in names)
        n_passes = 1 if total_mib <= config.weights_mib else _PASSES
        for n_done in range(1, n_passes + 1):
            visits, rounds = math.ceil(config.min_rounds * n_done / n_passes), math.ceil(config.max_rounds / n_passes)
            yield _Pass(visits, config.precision_percent, rounds)

    def _load(self, host: Host, names: list[str]) -> dict[str, _BurstTimer]:
        """Load models, but no more than can be visited in the time that is left."""
        timers: dict[str, _BurstTimer] = {}
        load_s = visits_s = 0.0
        for name in names:
            if self.is_over(visits_s + load_s):
                break
            start = monotonic()
            timers[name] = self._timer(host, self.models[name])
            load_s = monotonic() - start
            visits_s += self._first_visits * timers[name].seconds
            with self._lock:
                self.loaded.add(name)
                self._report()
        return timers

    def _timer(self, host: Host, model: Model) -> _BurstTimer:
        return _BurstTimer(host.load(model), self.config.burst_ms, self._stopped)

    def _add(self, bursts: Mapping[str, Burst]) -> None:
        with self._lock:
            for name, burst in bursts.items():
                self.samples.setdefault(name, []).append(burst)
            self._estimator = LatencyEstimator.fit(self.samples, self.config.bursts)
            self._report()

    def _report(self) -> None:
        if self.seconds is not None:
            self.on_progress(round(min(monotonic() - self._start, self.seconds)), round(self.seconds))
            return
        required = self.config.min_rounds
        visits = sum(min(len(self.samples.get(name, ())), required) for name in self.models)
        done, total = _LOADING_VISITS * len(self.loaded) + visits, len(self.models) * (_LOADING_VISITS + required)
        self.on_progress(done, total)


def _groups(names: list[str], models: Mapping[str, Model], weights_mib: float, size: int | None) -> list[list[str]]:
    """Split models into groups, of `size` at most, whose weights fit into memory; a model too large for it is one."""
    groups: list[list[str]] = []
    free_mib = -1.0
    for name in names:
        if models[name].weights_mib > free_mib or len(groups[-1]) == size:
            groups.append([])
            free_mib = weights_mib
        groups[-1].append(name)
        free_mib -= models[name].weights_mib
    return groups


def _visit(
    timers: Mapping[str, _BurstTimer], reference: _BurstTimer, session: int, rng: np.random.Generator
) -> dict[str, Burst]:
    """Visit each model once, in random order, and the reference after every few of them."""
    names = list(timers)
    order = [names[i] for i in rng.permutation(len(names))]
    run_ms, reference_ms, index = {}, [], {}
    for position, name in enumerate(order):
        if position % _REFERENCE_EVERY == 0:
            reference_ms.append(reference())
        run_ms[name], index[name] = timers[name](), len(reference_ms)
    reference_ms.append(reference())
    around_ms = {name: float(np.median(reference_ms[max(0, i - 3) : i + 3])) for name, i in index.items()}
    return {name: Burst(run_ms[name], around_ms[name], session) for name in names}
