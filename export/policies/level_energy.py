"""The energy that an image takes at each level of a bundle, and which levels are worth it."""

from collections.abc import Sequence

from export.errors import check_number
from ofa.core.errors import BundleError
from ofa.pipeline.levels import Level


def energies_mj(levels: Sequence[Level], power_w: float | None = None) -> tuple[float, ...] | None:
    """Return the energy of an image at each level in millijoules; None if it is not known.

    It is latency times `power_w`, the power in watts that a running model adds, if that is given, else `energy_mj`.
    """
    if power_w is not None:
        check_number("power_w", power_w, 1e-6, 1e6, kind=BundleError)
        return tuple(power_w * image_ms for image_ms in image_latencies_ms(levels))
    stated_mj = tuple(level.energy_mj for level in levels if level.energy_mj is not None)
    return stated_mj if len(stated_mj) == len(levels) else None


def image_latencies_ms(levels: Sequence[Level]) -> tuple[float, ...]:
    """Return the latency of each level in milliseconds per image."""
    return tuple(level.latency_ms / level.batch for level in levels)


def upper_hull(energies_mj: Sequence[float], top1_percent: Sequence[float]) -> tuple[int, ...]:
    """Return the levels on the upper concave hull of accuracy over energy, from the cheapest to the most accurate.

    Any other level is beaten by a mixture of two of these.
    """

    def slope(cheap: int, dear: int) -> float:
        return (top1_percent[dear] - top1_percent[cheap]) / (energies_mj[dear] - energies_mj[cheap])

    hull: list[int] = []
    for level in sorted(range(len(energies_mj)), key=lambda i: (energies_mj[i], -top1_percent[i])):
        if hull and top1_percent[level] <= top1_percent[hull[-1]]:
            continue
        while len(hull) > 1 and slope(hull[-2], level) >= slope(hull[-2], hull[-1]):
            hull.pop()
        hull.append(level)
    return tuple(hull)
