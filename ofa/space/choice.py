"""Search spaces: choices, archs, and sets of archs as integer matrices.

A set of archs is an integer matrix `[n, n_choices]` whose entries are indices into each choice's values,
so sampling, mutation, crossover, costs and predictions are array operations over thousands of archs at
once. `Arch` is the readable view of one row. A choice of a skipped layer is *inactive*: rows hold 0
there and an `Arch` leaves it out, so equal networks have equal rows and equal archs. A choice that *follows*
another is not free: canonical rows hold, and an `Arch` shows, what the other one leads to.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ofa.core.errors import SpaceError
from ofa.space.arch import Value


@dataclass(frozen=True)
class Choice:
    """One decision and its allowed values, ascending.

    Attributes:
        name: such as `resolution`, `stage2.depth` or `stage2.block1.kernel`.
        values: allowed values, strictly ascending; the last is the largest network's.
        needs: `(name, minimum)`: the choice is active while the (earlier) choice `name` is active
            and its value is at least `minimum`. None: always active.
        follows: the (earlier) choice that decides this one: both are as far along their values, rounded half up, as
            depth and width in CompOFA (arXiv 2104.12642). The last value where that one is inactive or has a single
            value. None: free.
    """

    name: str
    values: tuple[Value, ...]
    needs: tuple[str, Value] | None = None
    follows: str | None = None

    def __post_init__(self) -> None:
        if not self.values:
            raise SpaceError(f"choice {self.name!r} has no values; give at least one")
        if any(type(v) not in (int, float) or not math.isfinite(v) for v in self.values):
            raise SpaceError(f"choice {self.name!r} has values {self.values}; only finite numbers are allowed")
        if any(b <= a for a, b in zip(self.values, self.values[1:], strict=False)):
            raise SpaceError(f"choice {self.name!r} has values {self.values}; sort them ascending, each once")

    def needs_for(self, index: int) -> tuple[str, Value] | None:
        """The `needs` of what belongs to block `index`, counted from 0, if this choice is how many blocks are kept."""
        return (self.name, index + 1) if index + 1 > self.values[0] else None
