"""A guard around a policy that keeps requests fast while a processor is throttled."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from export.errors import check_number
from export.policies.policy import Observation, Policy
from ofa.core.errors import BundleError
from ofa.pipeline.levels import Level

_RETURN_SHARE = 0.9
"""A slower level returns once its expected latency is below the bound by a tenth."""
_RELAPSE_S, _MAX_HOLD_S = 900.0, 3600.0
"""A return that fails within this time doubles the wait before the next one, up to the maximum."""


@dataclass(frozen=True)
class GuardState:
    """What a `LatencyGuard` remembers.

    Attributes:
        inner: state of the policy inside.
        slowest: the slowest level that is allowed now.
        seen_s: time of the last latency.
        above_s: seconds for which the latency has been above the bound; None if it is not.
        below_s: seconds for which the next slower level has been expected well below it; None if it is not.
        hold_s: seconds that this must last before that level returns.
        returned_s: time of the last return of a slower level.
    """

    hold_s: float
    inner: Any = None
    slowest: int = 0
    seen_s: float = float("-inf")
    above_s: float | None = None
    below_s: float | None = None
    returned_s: float = float("-inf")


@dataclass(frozen=True)
class LatencyGuard:
    """Serve the level of another policy, or a faster one while the measured latency stays above a bound.

    The expected latency of a level is its stated one times the slowdown: the ratio of measured to stated latency of
    the level that serves. After `patience_s` above the bound, the guard switches to the slowest level that is expected
    below it, at least one level faster. The next slower level returns after it has been expected well below the bound
    for as long. A time without requests counts for half of that at most, so at least three decisions in a row must have
    seen it. Each return that soon fails doubles that wait, so a level that itself heats the processor is not tried
    over and over.

    Attributes:
        policy: the policy that is guarded.
        latencies_ms: stated latency of each level, from the slowest to the fastest.
        bound_ms: largest latency of a request, in milliseconds.
        patience_s: seconds that a latency must stay above or below before the guard acts.
    """

    policy: Policy
    latencies_ms: tuple[float, ...]
    bound_ms: float
    patience_s: float = 30.0

    def __post_init__(self) -> None:
        check_number("bound_ms", self.bound_ms, 1e-6, 1e9, kind=BundleError)
        check_number("patience_s", self.patience_s, 0, 1e6, kind=BundleError)
        for latency_ms in self.latencies_ms:
            check_number("latencies_ms", latency_ms, 1e-9, 1e9, kind=BundleError)
        if len(self.latencies_ms) != self.policy.n_levels:
            counts = f"{len(self.latencies_ms)} latencies for a policy of {self.policy.n_levels} levels"
            raise BundleError(f"{counts} are not allowed; give one per level")

    @classmethod
    def of(cls, policy: Policy, levels: Sequence[Level], *, bound_ms: float) -> "LatencyGuard":
        """Return a guard for the levels of a bundle."""
        return cls(policy, tuple(level.latency_ms for level in levels), bound_ms)

    @property
    def n_levels(self) -> int:
        """The number of levels that the policy chooses from."""
        return self.policy.n_levels

    def decide(self, state: GuardState | None, seen: Observation) -> tuple[int, GuardState]:
        """Return the level to run from now on, and the next state; raises what the policy inside raises."""
        state = state or GuardState(hold_s=self.patience_s)
        level, inner = self.policy.decide(state.inner, seen)
        state = replace(self._watched(state, seen), inner=inner)
        return max(level, state.slowest), state

    def _watched(self, state: GuardState, seen: Observation) -> GuardState:
        """Return the state after the latency since the last decision; without requests, it stays as it is."""
        if seen.latency_ms is None or seen.level is None:
            return state
        slowdown = seen.latency_ms / self.latencies_ms[seen.level]
        since_s, state = seen.time_s - state.seen_s, replace(state, seen_s=seen.time_s)
        if seen.latency_ms > self.bound_ms:
            above_s = _lasting(state.above_s, since_s, self.patience_s)
            state = replace(state, above_s=above_s, below_s=None)
            return self._faster(state, seen, slowdown) if above_s >= self.patience_s else state
        state = replace(state, above_s=None)
        slower = state.slowest - 1
        if slower < 0 or self.latencies_ms[slower] * slowdown > _RETURN_SHARE * self.bound_ms:
            return replace(state, below_s=None)
        below_s = _lasting(state.below_s, since_s, state.hold_s)
        if below_s < state.hold_s:
            return replace(state, below_s=below_s)
        return replace(state, slowest=slower, below_s=None, returned_s=seen.time_s)

    def _faster(self, state: GuardState, seen: Observation, slowdown: float) -> GuardState:
        """Return the state with a faster level as the slowest."""
        assert seen.level is not None
        fits = (k for k, latency_ms in enumerate(self.latencies_ms) if latency_ms * slowdown <= self.bound_ms)
        slowest = min(max(seen.level + 1, next(fits, self.n_levels)), self.n_levels - 1)
        if slowest <= state.slowest:
            return state
        relapse = seen.time_s - state.returned_s < _RELAPSE_S
        hold_s = min(2 * state.hold_s, max(_MAX_HOLD_S, self.patience_s)) if relapse else self.patience_s
        return replace(state, slowest=slowest, above_s=None, hold_s=hold_s)


def _lasting(so_far_s: float | None, since_s: float, needed_s: float) -> float:
    """Return for how long something has lasted: `since_s` longer than so far, of which half of the need counts."""
    return 0.0 if so_far_s is None else so_far_s + min(since_s, needed_s / 2)
