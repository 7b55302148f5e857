"""What predictors read of archs: their values, numbers that sum them up, and their graphs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ofa.predict.paths import Paths
from ofa.space.arch import Rows
from ofa.space.graphs import Graphs, chain
from ofa.space.search_space import SearchSpace

Floats = NDArray[np.float64]
Feature = Callable[[Rows], Floats]
"""A function from rows `[n, n_choices]` to one positive number for each, such as `ofa.macs_m(family)`."""


@dataclass(frozen=True, eq=False)
class Encoding:
    """The archs of a space in the forms that predictors read.

    Attributes:
        space: search space of the archs.
        features: costs by name that are known without a measurement, such as MACs; predictors read their logarithms.
        graph: a function from rows `[n, n_choices]` to the graphs of the networks; None if there is only a space.
        has_paths: whether the paths through the graphs tell archs apart, as those of cells do; those of chains do not.
    """

    space: SearchSpace
    features: Mapping[str, Feature] = field(default_factory=dict)
    graph: Callable[[Rows], Graphs] | None = None
    has_paths: bool = True

    @cached_property
    def n_states(self) -> tuple[int, ...]:
        """The number of states of each choice: its values, and one more if it can be inactive."""
        return tuple(len(choice.values) + (choice.needs is not None) for choice in self.space.choices)

    @cached_property
    def kinds(self) -> tuple[int, ...]:
        """Which choices decide on the same thing in different places, by equal numbers: `*.kernel`, `*.expand`."""
        keys = [
            (name.rpartition(".")[2].strip("0123456789"), n)
            for name, n in zip(self.space.names, self.n_states, strict=True)
        ]
        return tuple(list(dict.fromkeys(keys)).index(key) for key in keys)

    def states(self, rows: Rows) -> Rows:
        """Return the state of each choice `[n, n_choices]`: 0 if inactive, else the index of its value, from 1.

        For choices that are always active, the index of the value itself.
        """
        can_be_inactive = np.array([choice.needs is not None for choice in self.space.choices])
        canonical = self.space.canonical(rows)
        return np.where(can_be_inactive & self.space.active(rows), canonical + 1, canonical)

    def one_hot(self, rows: Rows) -> Floats:
        """Return the states one-hot `[n, sum of n_states]`."""
        states, offsets = self.states(rows), np.cumsum([0, *self.n_states[:-1]])
        one_hot = np.zeros((len(states), sum(self.n_states)))
        one_hot[np.arange(len(states))[:, None], offsets + states] = 1.0
        return one_hot

    def counts(self, rows: Rows) -> Floats:
        """Return how many choices of a kind are in each state, in each stage and in all `[n, n_counts]`."""
        return self.one_hot(rows) @ self._groups

    def numbers(self, rows: Rows) -> Floats:
        """Return numbers that sum up archs `[n, n_numbers]`.

        How many choices of a kind are in each state, in each stage and in all; logarithms of the costs; and, for graphs
        with few paths, how many paths there are from input to output by the operations on them.
        """
        columns = [self.counts(rows)]
        columns += [np.log(np.maximum(feature(rows), 1e-9))[:, None] for feature in self.features.values()]
        if self.graph is not None and self.has_paths and self._paths is not None:
            columns.append(self._paths(self.graph(rows)))
        return np.concatenate(columns, axis=1)

    def graphs(self, rows: Rows) -> Graphs:
        """Return the graphs of the networks, or, if there is only a space, chains of the choices that are active."""
        return self._chains(rows) if self.graph is None else self.graph(rows)

    def _chains(self, rows: Rows) -> Graphs:
        n_values, kinds = np.array([len(choice.values) for choice in self.space.choices]), np.array(self.kinds)
        active, n_kinds = self.space.active(rows), max(self.kinds) + 1
        of_choices = np.where(active, 2 + kinds, -1)  # 0 and 1 are the input and the output
        ends = np.ones((len(rows), 1), dtype=np.int64)
        nodes = np.concatenate([0 * ends, of_choices, ends], axis=1)
        positions = np.where(active, rows / np.maximum(n_values - 1, 1), 0.0)
        sizes = np.zeros((*nodes.shape, n_kinds))
        sizes[:, np.arange(1, nodes.shape[1] - 1), kinds] = positions
        return chain(nodes, sizes.astype(np.float32))

    @cached_property
    def _groups(self) -> Floats:
        """Which states `[sum of n_states]` each group counts `[n_groups]`: two or more choices of a kind."""
        stages = [name.rpartition(".")[0].partition(".")[0] for name in self.space.names]
        members: dict[tuple[str, int], list[int]] = {}
        for column, (stage, kind) in enumerate(zip(stages, self.kinds, strict=True)):
            for group in {(stage, kind), ("", kind)}:
                members.setdefault(group, []).append(column)
        offsets, columns = np.cumsum([0, *self.n_states]), list[Floats]()
        for group in sorted(members, key=lambda group: members[group]):
            if len(members[group]) > 1:
                for state in range(self.n_states[members[group][0]]):
                    counted = np.zeros(offsets[-1])
                    counted[[offsets[i] + state for i in members[group]]] = 1.0
                    columns.append(counted)
        return np.array(columns).reshape(len(columns), offsets[-1]).T

    @cached_property
    def _paths(self) -> Paths | None:
        """Counts of paths; None where the graphs have too many, as those of chains of blocks."""
        assert self.graph is not None
        return Paths.of(self.graph(self.space.sample(1000, np.random.default_rng(0))))
