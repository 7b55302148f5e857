"""How far the front that a search found is from the best one known, once archs near it are measured, too."""

import time
from collections.abc import Mapping
from typing import Any

import numpy as np

from ofa.pipeline.accuracy_store import Samples
from ofa.pipeline.choose import objective_key
from ofa.pipeline.costs import CostFunction
from ofa.pipeline.measured import Entry, precision_drop
from ofa.pipeline.target import Target
from ofa.predict.denoise import Floats
from ofa.predict.predictor import Predictor
from ofa.search.pareto import hypervolume, hypervolume_gain
from ofa.space.arch import Arch


class Doubts:
    """Archs beside a front of which it is open whether they are better, and the time that it takes to measure them.

    These are archs that differ from one of the front in a single choice. Those come first that would add most to what
    the front dominates if their accuracies were at the upper ends of their intervals.
    """

    def __init__(
        self,
        target: Target,
        front: list[Entry],
        costs: Mapping[str, Mapping[str, CostFunction]],
        accuracies: Mapping[str, Samples],
        predictor: Predictor,
    ) -> None:
        self._start, space = time.monotonic(), target.run.family.space
        self._key = objective_key(target.config.objective)
        self.found, self.archs = front, dict[str, list[Arch]]()
        gains, points = list[tuple[float, str, Arch]](), _points(front, self._key)
        for precision in costs:
            own = [space.row(space.arch(one["arch"])) for one in front if one["precision"] == precision]
            if not own:
                continue
            rows = space.distinct(np.concatenate([space.neighbors(row) for row in own]))
            known = accuracies["float32"].keys()
            archs = [space.decode(row) for row in rows]
            top1_percent = predictor.predict(rows).high - precision_drop(target.run, accuracies, precision)(rows)
            cost = costs[precision][target.config.objective](rows)
            gain = hypervolume_gain(np.stack([cost, -top1_percent], axis=1), points, _corner(points))
            gains += [(g, precision, arch) for g, arch in zip(gain.tolist(), archs, strict=True) if arch not in known]
        for _, precision, arch in sorted(gains, key=lambda one: -one[0])[: target.recipe.search.judge]:
            self.archs.setdefault(precision, []).append(arch)

    def verdict(self, known: list[Entry], best: list[Entry]) -> dict[str, Any]:
        """Return what the front that was found is worth.

        Args:
            known: every measured arch, with its estimate after all measurements.
            best: the front of these.

        Returns:
            `archs` measured beside it, the `minutes` that took, the `area_percent` that it dominates of what the best
            front does, and by how many points the best one is more accurate where it is most so (`gap_percent`).
        """
        names = {(repr(one["arch"]), one["precision"]) for one in self.found}
        found = _points([one for one in known if (repr(one["arch"]), one["precision"]) in names], self._key)
        ideal = _points(best, self._key)
        corner = _corner(np.concatenate([found, ideal]))
        at_most = [found[found[:, 0] <= cost, 1] for cost in ideal[:, 0]]
        gaps = [float(of.min() - loss) for of, loss in zip(at_most, ideal[:, 1], strict=True) if len(of)]
        return {
            "archs": sum(map(len, self.archs.values())),
            "minutes": round((time.monotonic() - self._start) / 60, 1),
            "area_percent": 100 * hypervolume(found, corner) / hypervolume(ideal, corner),
            "gap_percent": max([0.0, *gaps]),
        }


def _points(entries: list[Entry], key: str) -> Floats:
    """Return what is minimized: the objective and the negative accuracy `[n, 2]`."""
    return np.array([[one[key], -one["estimated_top1_percent"]] for one in entries], dtype=np.float64).reshape(-1, 2)


def _corner(points: Floats) -> tuple[float, float]:
    """Return a point that is a little worse than all of them."""
    worst, extent = points.max(axis=0), np.ptp(points, axis=0)
    low = worst + 0.1 * extent + 1e-9
    return float(low[0]), float(low[1])
