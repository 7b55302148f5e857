"""Which of the measured archs a target deploys."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ofa.core.errors import InfeasibleError
from ofa.pipeline.recipe import Cost, TargetConfig

Entry = Mapping[str, Any]

ROUNDING = 1 + 1e-9
"""Factor by which a cost may exceed its limit: costs of many archs at once are summed in another order than of one."""

_APART = 0.1
"""Smallest relative difference of two levels in the objective."""


def choose_levels(measured: Sequence[Entry], front: Sequence[Entry], config: TargetConfig) -> list[Entry]:
    """Choose the archs that a target deploys, the most accurate first.

    With limits, the most accurate of all `measured` archs within each set of them; otherwise `config.levels` archs
    spread over the `front`, which is sorted by the objective.

    Raises:
        InfeasibleError: no arch is accurate enough, or none of those meets the limits; it names the best values.
    """
    least = config.min_top1_percent
    accurate = [entry for entry in measured if entry["estimated_top1_percent"] >= least]
    if not accurate:
        best = max(entry["estimated_top1_percent"] for entry in measured)
        raise InfeasibleError(
            f"target {config.name!r}: min_top1_percent = {least} is above the best accuracy found, {best:.2f}; lower it"
        )
    if config.limits is None:
        of_front = [entry for entry in front if entry["estimated_top1_percent"] >= least]
        values = np.array([entry[objective_key(config.objective)] for entry in of_front])
        return [of_front[i] for i in spread(values, config.levels, apart=_APART)[::-1]]
    by_identity = {id(entry): entry for entry in (_most_accurate(accurate, limits, config) for limits in config.limits)}
    return sorted(by_identity.values(), key=lambda entry: -float(entry["estimated_top1_percent"]))


def objective_key(cost: str) -> str:
    """Return the key of a cost in the entries of a front."""
    return "predicted_latency_ms" if cost == "latency_ms" else cost


def spread(values: NDArray[np.float64], n: int, apart: float = 0.0) -> NDArray[np.int64]:
    """Return up to `n` positions in ascending values `[m]`, evenly spread on a logarithmic scale, the last included.

    Two of them differ by at least the share `apart`; fewer are returned where values lie closer.
    """
    logs, least = np.log(values), np.log1p(apart)
    positions = [len(values) - 1]
    for point in np.linspace(logs[0], logs[-1], n)[:-1]:
        free = [i for i in range(len(logs)) if i not in positions and np.abs(logs[i] - logs[positions]).min() >= least]
        positions += [min(free, key=lambda i: abs(logs[i] - point))] if free else []
    return np.array(sorted(positions))


def _most_accurate(accurate: Sequence[Entry], limits: Mapping[Cost, float], config: TargetConfig) -> Entry:
    most = {objective_key(name): limit * ROUNDING for name, limit in limits.items()}
    within = [entry for entry in accurate if all(entry[key] <= limit for key, limit in most.items())]
    if not within:
        tightest = ", ".join(
            f"{name} = {limit:g} (lowest: {min(entry[objective_key(name)] for entry in accurate):.4g})"
            for name, limit in limits.items()
        )
        raise InfeasibleError(
            f"target {config.name!r}: no arch of at least {config.min_top1_percent:g}% meets {tightest}; raise a limit"
        )
    return max(within, key=lambda entry: float(entry["estimated_top1_percent"]))
