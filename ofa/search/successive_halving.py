"""Successive halving (Jamieson and Talwalkar, 2016): many archs on few images, the best of them on more."""

import numpy as np
from numpy.typing import NDArray
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

    several_fidelities = True
    _rung = -1
    _n_asked = 0
    _first = 0
    """Position, among the archs told, of the first one that was told since this rung began."""

    def _begin(self) -> None:
        self._in_rung = self.space.rows([])

    def ask(self, n: int) -> Rows:
        """Return up to `n` archs of the current rung; none as long as values of it are missing."""
        self._check_n(n)
        told = self._told()
        if len(told) == len(self._in_rung):
            self._in_rung, self._first, self._n_asked = self._next_rung(told), len(self.rows), 0
        rows = self._in_rung[self._n_asked : self._n_asked + n]
        self._n_asked += len(rows)
        self._remember(rows)
        return rows

    def _told(self) -> NDArray[np.int64]:
        """Return the positions of the last values that this rung's archs have got since it began."""
        in_rung = set(self._keys(self._in_rung))
        last = {key: i for i, key in enumerate(self._keys(self.rows[self._first :]), self._first) if key in in_rung}
        return np.array(sorted(last.values()), dtype=np.int64)

    def _propose(self, n: int) -> Rows:
        return self._random(n)

    def _next_rung(self, told: NDArray[np.int64]) -> Rows:
        last = self.settings.rungs - 1
        if 0 <= self._rung < last and len(told):
            self._rung += 1
            n_left = max(len(told) // self.settings.reduction, 1)  # one at least is measured on all images
            rows = self.rows[told][self.best(told, n_left)]
        else:
            self._rung = 0
            rows = super().ask(self.settings.initial)
        self.fidelity = float(self.settings.reduction) ** (self._rung - last)
        return rows

    def state(self) -> State:
        """Return everything that `restore` needs, by name."""
        at = {"rung": np.array([self._rung, self._first, self._n_asked]), "in_rung": self._in_rung}
        return super().state() | at | {"fidelity": np.array([self.fidelity])}

    def restore(self, state: State) -> None:
        """Continue where another search was."""
        super().restore(state)
        self._rung, self._first, self._n_asked = state["rung"].tolist()
        self._in_rung = state["in_rung"]
        self.fidelity = float(state["fidelity"][0])
