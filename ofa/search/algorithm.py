"""What all search algorithms have in common: ask for archs, be told their values, keep the front, stop and resume."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from ofa.core.config import Config
from ofa.core.errors import InfeasibleError, SearchError
from ofa.core.plugins import load_configured
from ofa.predict.encoding import Encoding
from ofa.predict.predictor import as_encoding
from ofa.search.pareto import Floats, best_first, non_dominated
from ofa.search.problem import Constraint, Front, Objective, Problem, check_values
from ofa.space.arch import Rows

GROUP = "ofa.searches"
"""Entry-point group of search algorithms."""
State = dict[str, NDArray[Any]]
_MOST = 100_000
TRIES = 20
"""Times that archs are drawn before those that are left are looked for in another way."""
LISTED = 20_000
"""Size of a space up to which all of its archs are listed to find those that are left."""


class Algorithm(ABC):
    """A search algorithm.

    `ask(n)` returns archs to evaluate, `tell(rows, values)` takes their values; archs that nobody asked for may be told
    as well. No arch is asked for twice, but by algorithms that say so.

    Args:
        encoding: the search space, and what predictors read of it.
        problem: objectives and constraints.
        settings: of the class `Settings`.
        rng: of everything that is drawn.
        start: rows `[n, n_choices]` to ask for first.
    """

    name: ClassVar[str]
    Settings: ClassVar[type[Config]] = Config
    remembers: ClassVar[bool] = True
    """Whether all rows that were asked for or told, and their values, are kept."""
    several_fidelities: ClassVar[bool] = False
    """Whether some archs are measured on a share of the images only."""
    fidelity: float = 1.0
    """The share of the images on which the archs of the last `ask` are to be measured. Below 1, what is told is no
    candidate for the front."""

    def __init__(
        self, encoding: Encoding, problem: Problem, settings: Any, rng: np.random.Generator, start: Rows
    ) -> None:
        self.encoding, self.space, self.problem = encoding, encoding.space, problem
        self.settings, self.rng = settings, rng
        n_objectives, none = len(problem.objectives), self.space.rows([])
        self.start = self.space.unique(start)
        self.rows, self.values = none, np.zeros((0, len(problem.columns)))
        self.n_told = 0
        self._seen: set[bytes] = set()
        self._front_rows, self._front_losses = none, np.zeros((0, n_objectives))
        self._tightest = np.full(len(problem.constraints), np.inf)
        self._begin()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.space!r}, {self.settings!r}, told {self.n_told} archs)"

    def best(self, which: slice | NDArray[np.int64], n: int | None = None) -> NDArray[np.int64]:
        """Return the positions of the `n` best, all by default, within a part of the archs that are kept."""
        values = self.values[which]
        return best_first(self.problem.losses(values), self.problem.excess(values), n)

    @abstractmethod
    def _propose(self, n: int) -> Rows:
        """Return canonical rows, of which the first `n` that were not seen are asked for; none if nothing is left."""

    def _begin(self) -> None:  # noqa: B027  # most algorithms have nothing beside their archs
        """Set up what the algorithm has beside its archs."""

    def _learn(self, rows: Rows, values: Floats) -> None:  # noqa: B027  # most read what is kept when they are asked
        """Take in archs that were told."""

    def ask(self, n: int) -> Rows:
        """Return up to `n` different canonical rows to evaluate; none if the algorithm has nothing left to ask for.

        Raises:
            SearchError: `n` is below 1.
        """
        self._check_n(n)
        rows, self.start = self.start[:n], self.start[n:]
        rows = self._not_seen(rows)
        if len(rows) < n:
            proposed = self.space.distinct(np.concatenate([rows, self._propose(n - len(rows))]))[len(rows) :]
            rows = np.concatenate([rows, self._not_seen(proposed)])[:n]
        self._remember(rows)
        return rows

    def tell(self, rows: Rows, values: Floats) -> None:
        """Take in the values `[n, n_objectives + n_constraints]` of rows `[n, n_choices]`.

        Raises:
            SearchError: there is not one value for each, one is NaN, or one of an objective is infinite.
            SpaceError: the rows do not belong to the space.
        """
        rows, values = self.space.canonical(rows), np.asarray(values, dtype=np.float64)
        columns = self.problem.columns
        if values.shape != (len(rows), len(columns)):
            names = ", ".join(column.name for column in columns)
            raise SearchError(f"values have shape {values.shape}; tell [{len(rows)}, {len(columns)}], that is {names}")
        for column, told in zip(columns, values.T, strict=True):
            check_values(column, told)
        losses, excess = self.problem.losses(values), self.problem.excess(values)
        of_constraints = values[:, len(self.problem.objectives) :]
        self._tightest = np.minimum(self._tightest, of_constraints.min(axis=0, initial=np.inf))
        self.n_told += len(rows)
        if self.remembers:
            self._remember(rows)
            self.rows, self.values = np.concatenate([self.rows, rows]), np.concatenate([self.values, values])
        if self.fidelity == 1:
            last = self._last_appearances(rows)
            self._update_front(rows[last], losses[last], excess[last] <= 0)
        if len(rows):
            self._learn(rows, values)

    def step(self, n: int) -> Rows:
        """Ask for up to `n` archs and tell the values that the functions give; returns the archs.

        Raises:
            SearchError: an objective or constraint has no function, or gives no usable number.
        """
        rows = self.ask(n)
        self.tell(rows, self.problem.evaluate(rows))
        return rows

    def front(self) -> Front:
        """Return the front of all archs that were told.

        Raises:
            InfeasibleError: none of them meets the constraints; the message names the tightest value seen of each.
            SearchError: there are no constraints, and no arch was told yet that was measured on all images.
        """
        if not len(self._front_rows):
            if not self.problem.constraints:
                raise SearchError(f"{self.name} has no front of {self.n_told} archs yet; ask for more and tell them")
            missed = "; ".join(
                f"{constraint.name} must be at most {constraint.limit:g}, the tightest seen is {value:.4g}"
                for constraint, value in zip(self.problem.constraints, self._tightest, strict=True)
            )
            raise InfeasibleError(f"no arch of {self.n_told} meets the constraints: {missed}; raise the limit")
        order = np.argsort(self._front_losses[:, 0], kind="stable")
        return Front(self._front_rows[order], self.problem.losses(self._front_losses[order]), self.n_told)

    def state(self) -> State:
        """Return everything that `restore` needs to continue as if the search had never been stopped, by name."""
        generator = json.dumps(self.rng.bit_generator.state, default=np.ndarray.tolist)
        return {
            "rng": np.frombuffer(generator.encode(), dtype=np.uint8),
            "n_told": np.array([self.n_told]),
            "seen": np.frombuffer(b"".join(sorted(self._seen)), dtype=np.uint8),
            "start": self.start,
            "rows": self.rows,
            "values": self.values,
            "front.rows": self._front_rows,
            "front.losses": self._front_losses,
            "tightest": self._tightest,
        }

    def restore(self, state: State) -> None:
        """Continue where another search with the same arguments was when it returned the state."""
        self.rng.bit_generator.state = json.loads(state["rng"].tobytes())
        self.n_told = int(state["n_told"][0])
        n_bytes = self.space.keys(self.space.rows([self.space.smallest])).nbytes
        seen = state["seen"].tobytes()
        self._seen = {seen[i : i + n_bytes] for i in range(0, len(seen), n_bytes)}
        self.start, self.rows, self.values = state["start"], state["rows"], state["values"]
        self._front_rows, self._front_losses = state["front.rows"], state["front.losses"]
        self._tightest = state["tightest"]

    @staticmethod
    def _check_n(n: int) -> None:
        if n < 1:
            raise SearchError(f"ask({n}) asks for no arch; ask for 1 or more")

    def _remember(self, rows: Rows) -> None:
        if self.remembers:
            self._seen.update(self._keys(rows))

    def _not_seen(self, rows: Rows) -> Rows:
        """Return those of different canonical rows that were neither asked for nor told; all if nothing is kept."""
        if not self.remembers:
            return rows
        return rows[[key not in self._seen for key in self._keys(rows)]] if len(rows) else rows

    def _new(self, n: int, draw: Callable[[int], Rows]) -> Rows:
        """Return `n` different rows that were not seen, from a function that draws some number of them.

        After some tries, the archs that are left of a small space fill up.
        """
        rows = self.space.rows([])
        for _ in range(TRIES):
            if len(rows) == n:
                return rows
            rows = self._not_seen(self.space.distinct(np.concatenate([rows, draw(n - len(rows))])))[:n]
        if self.space.size <= LISTED:
            left = self._not_seen(self._all())
            rows = self.space.distinct(np.concatenate([rows, self.rng.permutation(left)]))[:n]
        return rows

    def _all(self) -> Rows:
        return np.array(list(self.space.enumerate()))

    def _random(self, n: int) -> Rows:
        """Return `n` random rows that were not seen, fewer if the space has no more."""
        return self._new(n, lambda n: self.space.sample(n, self.rng))

    def _keys(self, rows: Rows) -> list[bytes]:
        return [key.tobytes() for key in self.space.keys(rows)]

    def _last_appearances(self, rows: Rows) -> NDArray[np.int64]:
        """Return the positions of the different ones of canonical rows, of equal ones the last."""
        return len(rows) - 1 - self.space.first_appearances(rows[::-1])[::-1]

    def _update_front(self, rows: Rows, losses: Floats, feasible: NDArray[np.bool_]) -> None:
        """Take in different archs that were told. What is told again replaces what was told before."""
        # Comparing first words alone rules out most rows at once.
        may_be_old = np.isin(self.space.keys(rows)[:, 0], self.space.keys(self._front_rows)[:, 0])
        told_again = set(self._keys(rows[may_be_old]))
        stays = np.array([key not in told_again for key in self._keys(self._front_rows)], dtype=bool)
        if self.remembers and not self.several_fidelities and not stays.all():  # an arch behind it may be on the front
            last = self._last_appearances(self.rows)
            rows, losses = self.rows[last], self.problem.losses(self.values[last])
            feasible, stays = self.problem.excess(self.values[last]) <= 0, np.zeros_like(stays)
        rows, losses = rows[feasible], losses[feasible]
        on_front = non_dominated(losses)
        rows = np.concatenate([self._front_rows[stays], rows[on_front]])
        losses = np.concatenate([self._front_losses[stays], losses[on_front]])
        on_front = non_dominated(losses)
        self._front_rows, self._front_losses = rows[on_front], losses[on_front]


def create(
    name: str,
    subject: Any,
    objectives: Sequence[Objective | str],
    constraints: Sequence[Constraint] = (),
    *,
    rng: np.random.Generator,
    start: Rows | None = None,
    **settings: Any,
) -> Algorithm:
    """Create a search over the archs of a space or a family.

    Args:
        name: of the entry-point group `ofa.searches`: `nsga2`, `random`, `grid`, `local`, `regularized_evolution`,
            `bayesian`, `reinforce`, `successive_halving`.
        subject: a `SearchSpace`, a `Family`, or an `Encoding` (see `ofa.predict.create`).
        objectives: what is optimized; one given by name alone is minimized.
        constraints: what must be kept; their values are told after those of the objectives.
        rng: of everything that is drawn.
        start: rows `[n, n_choices]` to begin with.
        settings: of the algorithm; see its file in `ofa/search/`.

    Raises:
        SearchError: there is no such algorithm or setting, a value is not allowed, or there is no objective.
        SpaceError: `start` does not belong to the space.
    """
    kind, checked = check_settings(name, settings)
    encoding = as_encoding(subject)
    first = encoding.space.rows([]) if start is None else start
    return kind(encoding, Problem.of(objectives, constraints), checked, rng, first)


def check_settings(name: str, settings: Mapping[str, Any]) -> tuple[type[Algorithm], Config]:
    """Return the class of an algorithm and its checked settings; SearchError if one of them is wrong."""
    return load_configured(GROUP, name, settings, "search algorithm", SearchError)


def with_population(name: str, settings: Mapping[str, Any], population: int) -> dict[str, Any]:
    """Return the settings of an algorithm with its population, if it is one that has a population."""
    kind, _ = check_settings(name, settings)
    return dict(settings) | ({"population": population} if "population" in kind.Settings.model_fields else {})


def search(
    subject: Any,
    objectives: Sequence[Objective],
    constraints: Sequence[Constraint],
    rng: np.random.Generator,
    *,
    algorithm: str = "nsga2",
    population: int = 200,
    generations: int = 50,
    start: Rows | None = None,
    **settings: Any,
) -> Front:
    """Search for the front of the archs that meet all constraints, all of which are functions.

    The search asks for `population` archs, `generations` times at most; the smallest and the largest arch and `start`
    `[n, n_choices]` come first. Other arguments are those of `create`.

    Raises:
        InfeasibleError: no arch meets the constraints; the message names the tightest value seen of each.
        SearchError: a setting is out of range, or an objective or constraint gives NaN; and see `create`.
        SpaceError: `start` does not belong to the space.
    """
    space = as_encoding(subject).space
    ends = space.rows([space.smallest, space.largest])
    first = ends if start is None else np.concatenate([ends, space.check_rows(start)])
    settings = with_population(algorithm, settings, population)
    for name, value in (("population", population), ("generations", generations)):
        if not (isinstance(value, int | np.integer) and 1 <= value <= _MOST):
            raise SearchError(f"{name} = {value} is not allowed; choose a whole number from 1 to {_MOST}")
    running = create(algorithm, subject, objectives, constraints, rng=rng, start=first, **settings)
    for _ in range(generations):
        if not len(running.step(population)):
            break
    return running.front()
