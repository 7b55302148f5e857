"""Random search: the baseline, hard to beat where archs differ little (Li and Talwalkar, 2019)."""

from ofa.search.algorithm import Algorithm
from ofa.space.arch import Rows


class Random(Algorithm):
    """Archs in which each choice is uniform over its values; none twice."""

    name = "random"

    def _propose(self, n: int) -> Rows:
        return self._random(n)
