import numpy as np
import pytest

from ofa.core.errors import SearchError
from ofa.search.problem import Constraint, Objective, evaluate, violation

ROWS = np.arange(6).reshape(3, 2)


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        (4.0, [0, 0, 0, 0.25, 1, np.inf]),
        (-4.0, [0, 1, 2, 2.25, 3, np.inf]),  # as a share of the magnitude of the limit
        (0.0, [0, 0, 4e12, 5e12, 8e12, np.inf]),
        (np.inf, [0, 0, 0, 0, 0, 0]),
    ],
)
def test_a_violation_is_the_share_of_the_limit_by_which_a_value_exceeds_it(limit, expected):
    values = np.array([-4.0, 0, 4, 5, 8, np.inf])
    assert violation(Constraint("latency_ms", len, limit), values) == pytest.approx(expected)


@pytest.mark.parametrize("limit", [float("nan"), -np.inf])
def test_a_limit_that_is_no_limit_is_refused(limit):
    with pytest.raises(SearchError, match=f"'latency_ms' has the limit {limit}; give a number, or inf for no limit"):
        Constraint("latency_ms", len, limit)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1.0, np.nan, np.nan], "'accuracy' is nan for 2 archs; return finite values"),
        ([1.0, 2.0], r"'accuracy' has shape \(2,\); return one value for each of 3 archs"),
        ([[1.0], [2.0], [3.0]], r"'accuracy' has shape \(3, 1\)"),
        (1.0, r"'accuracy' has shape \(\)"),
    ],
)
def test_a_function_without_a_number_for_each_arch_is_refused_by_name(values, message):
    for problem in (
        Objective("accuracy", lambda rows: np.array(values)),
        Constraint("accuracy", lambda rows: np.array(values), 1.0),
    ):
        with pytest.raises(SearchError, match=message):
            evaluate(problem, ROWS)


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_objectives_are_finite_but_constrained_values_may_be_infinite(value):
    def function(_):
        return [1, 2, value]

    with pytest.raises(SearchError, match=f"'accuracy' is {value} for 1 archs"):
        evaluate(Objective("accuracy", function), ROWS)
    assert evaluate(Constraint("latency_ms", function, 1.0), ROWS).tolist() == [1, 2, value]
