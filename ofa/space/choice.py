"""One decision of a search space."""

import math
from dataclasses import dataclass
from itertools import pairwise

from ofa.core.errors import SpaceError
from ofa.space.arch import Value


@dataclass(frozen=True)
class Choice:
    """One decision and its allowed values.

    Attributes:
        name: a name such as `resolution`, `stage2.depth` or `stage2.block1.kernel`.
        values: the allowed values in strictly ascending order; the largest network has the last one.
        needs: `(name, minimum)`: this choice is active if the earlier choice `name` is active with at least that value;
            None: it is always active.
        follows: the earlier choice that determines this one, as depth determines width in CompOFA (arXiv 2104.12642):
            index `i` of `n` leads to index `round(i * (m - 1) / (n - 1))` of `m` here, halves rounded up, and to the
            last if that choice is inactive or has a single value. None: this choice is free.

    Raises:
        SpaceError: `values` are not finite numbers in strictly ascending order.
    """

    name: str
    values: tuple[Value, ...]
    needs: tuple[str, Value] | None = None
    follows: str | None = None

    def __post_init__(self) -> None:
        numbers = all(type(value) in (int, float) and math.isfinite(value) for value in self.values)
        if not self.values or not numbers or any(larger <= smaller for smaller, larger in pairwise(self.values)):
            raise SpaceError(
                f"choice {self.name!r} has values {self.values}; give finite numbers in ascending order, each once"
            )

    def needs_for(self, index: int) -> tuple[str, Value] | None:
        """Return the `needs` of the choices of block `index` (from 0), if this choice is the number of blocks."""
        return (self.name, index + 1) if index + 1 > self.values[0] else None
