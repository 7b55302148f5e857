"""Which archs of a measured Pareto front are deployed as levels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ofa.core.errors import InfeasibleError
from ofa.pipeline.recipe import SearchConfig

_APART = 0.1
"""Smallest relative difference in latency of two levels."""


def choose_levels(front: list[dict[str, Any]], config: SearchConfig) -> list[dict[str, Any]]:
    """Choose the archs to deploy.

    Args:
        front: with `predicted_latency_ms`, ascending, and `estimated_top1_percent`.
        config: how many levels, or which latency limits, and the lowest accuracy.

    Returns:
        Entries of the front, the most accurate first.

    Raises:
        InfeasibleError: no arch is accurate enough, or none of those is fast enough; names the best value.
    """
    accurate = [entry for entry in front if entry["estimated_top1_percent"] >= config.min_top1_percent]
    if not accurate:
        best = max(entry["estimated_top1_percent"] for entry in front)
        raise InfeasibleError(
            f"search.min_top1_percent = {config.min_top1_percent} is above the best accuracy found, {best:.2f}; "
            "lower it"
        )
    latency_ms = np.array([entry["predicted_latency_ms"] for entry in accurate])
    limits = config.latency_limits_ms
    if limits is None:
        chosen = spread(latency_ms, config.levels, apart=_APART)
    elif min(limits) < latency_ms[0]:
        raise InfeasibleError(
            f"search.latency_limits_ms = {limits}: the fastest arch of at least {config.min_top1_percent}% takes "
            f"{latency_ms[0]:.4g} ms; raise the limit"
        )
    else:
        chosen = np.unique([int(np.flatnonzero(latency_ms <= limit)[-1]) for limit in limits])
    return [accurate[i] for i in chosen[::-1]]


def spread(latency_ms: NDArray[np.float64], n: int, apart: float = 0.0) -> NDArray[np.int64]:
    """Return at most `n` positions evenly spread on a logarithmic scale, the largest latency included.

    Args:
        latency_ms: ascending latencies `[m]`.
        n: number of positions.
        apart: smallest relative difference of two of them; fewer are returned where latencies lie closer.
    """
    logs, least = np.log(latency_ms), np.log1p(apart)
    positions = [len(latency_ms) - 1]
    for target in np.linspace(logs[0], logs[-1], n)[:-1]:
        free = [i for i in range(len(logs)) if i not in positions and np.abs(logs[i] - logs[positions]).min() >= least]
        positions += [min(free, key=lambda i: abs(logs[i] - target))] if free else []
    return np.array(sorted(positions))
