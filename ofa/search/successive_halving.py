"""Successive halving (Jamieson and Talwalkar, 2016): many archs on few images, the best of them on more."""

import numpy as np
from pydantic import Field

from ofa.core.config import Config
from ofa.search.algorithm import Algorithm, State
from ofa.space.arch import Rows


class SuccessiveHalvingSettings(Config):
    """Settings of the search `successive_halving`."""

    initial: int = Field(27, ge=2, le=100_000)
    """Random archs of the first rung of a bracket."""
    reduction: int = Field(3, ge=2, le=100)
    """Only one of so many archs reaches the next rung, where it is measured on as many times more images."""
    rungs: int = Field(3, ge=1, le=20)
    """Rungs of a bracket; the last one measures on all images."""


class SuccessiveHalving(Algorithm):
    """Brackets of random archs. After each `ask`, `fidelity` is the share of the images to measure on.

    An arch is asked for once in every rung that it reaches. Archs of one rung are compared with each other only; those
    of the last one make the front.
    """

    name = "successive_halving"
    Settings = SuccessiveHalvingSettings
    settings: SuccessiveHalvingSettings

    _rung = -1
    _first = 0
    """Position, among the archs told, of the first one of this rung."""
    _n_in_rung = 0
    _waiting: Rows | None = None
    """Archs of this rung that were not asked for yet."""

    def ask(self, n: int) -> Rows:
        """Return up to `n` archs of the current rung; none as long as values of it are missing."""
        self._check_n(n)
        if self._waiting is None or (not len(self._waiting) and len(self.rows) - self._first >= self._n_in_rung):
            self._waiting = self._next_rung()
            self._first, self._n_in_rung = len(self.rows), len(self._waiting)
        rows, self._waiting = self._waiting[:n], self._waiting[n:]
        self._remember(rows)
        return rows

    def _propose(self, n: int) -> Rows:
        return self._random(n)

    def _next_rung(self) -> Rows:
        last, first = self.settings.rungs - 1, slice(self._first, None)
        n_left = self._n_in_rung // self.settings.reduction
        if 0 <= self._rung < last and n_left:
            self._rung += 1
            rows = self.rows[first][self.best(first, n_left)]
        else:
            self._rung = 0
            rows = super().ask(self.settings.initial)
        self.fidelity = float(self.settings.reduction) ** (self._rung - last)
        return rows

    def state(self) -> State:
        """Return everything that `restore` needs, by name."""
        waiting = self.space.rows([]) if self._waiting is None else self._waiting
        at = [self._rung, self._first, self._n_in_rung]
        return super().state() | {"waiting": waiting, "rung": np.array(at), "fidelity": np.array([self.fidelity])}

    def restore(self, state: State) -> None:
        """Continue where another search was."""
        super().restore(state)
        self._rung, self._first, self._n_in_rung = state["rung"].tolist()
        self.fidelity = float(state["fidelity"][0])
        self._waiting = None if self._rung < 0 else state["waiting"]
