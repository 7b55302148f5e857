import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofa.search.pareto import crowding_distance, front_numbers, hypervolume, hypervolume_gain, non_dominated

POINTS = st.lists(st.tuples(*[st.integers(0, 4)] * 2), max_size=30)


def dominates(a, b):
    return all(x <= y for x, y in zip(a, b, strict=True)) and any(x < y for x, y in zip(a, b, strict=True))


def plain_front(points):
    """Whether no other point dominates each point, by a double loop."""
    return [not any(dominates(other, point) for other in points) for point in points]


@given(POINTS)
def test_non_dominated_points_of_two_objectives_are_those_of_a_double_loop(points):
    assert non_dominated(np.array(points, dtype=float).reshape(-1, 2)).tolist() == plain_front(points)


@given(st.lists(st.tuples(*[st.integers(0, 3)] * 3), max_size=25))
def test_non_dominated_points_of_three_objectives_are_those_of_a_double_loop(points):
    assert non_dominated(np.array(points, dtype=float).reshape(-1, 3)).tolist() == plain_front(points)


def test_non_dominated_points_are_found_among_more_points_than_a_block():
    losses = np.random.default_rng(0).integers(0, 60, size=(700, 2)).astype(float)
    losses[600] = [-1, 5]  # the last block dominates points of the first
    assert non_dominated(losses).tolist() == plain_front(losses.tolist())


def test_finite_losses_dominate_infinite_ones():
    losses = np.array([[1.0, np.inf], [np.inf, np.inf], [1.0, 2.0], [np.inf, 0.0]])
    assert non_dominated(losses).tolist() == [False, False, True, True]


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 9)), min_size=1, max_size=20, unique_by=lambda p: p[0]))
def test_the_crowding_distance_is_the_sum_of_gaps_between_neighbors(points):
    points = [(x, 50 - x, 3 * x) for x, _ in points]  # three objectives, no ties
    plain = []
    for point in points:
        gaps = []
        for values, value in zip(zip(*points, strict=True), point, strict=True):
            below, above = [v for v in values if v < value], [v for v in values if v > value]
            ends = max(values) - min(values)
            gaps.append((min(above) - max(below)) / ends if below and above else np.inf)
        plain.append(sum(gaps))
    assert crowding_distance(np.array(points, dtype=float), np.zeros(len(points), int)) == pytest.approx(plain)


def test_the_crowding_distance_of_a_known_front():
    losses = np.array([[4.0, 0.0], [0.0, 10.0], [1.0, 4.0], [3.0, 2.0]])
    assert crowding_distance(losses, np.zeros(4, int)).tolist() == [np.inf, np.inf, 3 / 4 + 8 / 10, 3 / 4 + 4 / 10]
    assert crowding_distance(np.ones((4, 2)), np.zeros(4, int)).tolist() == [
        np.inf,
        0,
        0,
        np.inf,
    ]  # equal points are not divided by 0


@given(POINTS, st.tuples(st.integers(-1, 6), st.integers(-1, 6)))
def test_the_hypervolume_is_the_number_of_grid_cells_that_points_dominate(points, reference):
    cells = [
        (x, y)
        for x in range(-1, reference[0])
        for y in range(-1, reference[1])
        if any(px <= x and py <= y for px, py in points)
    ]
    assert hypervolume(np.array(points, dtype=float).reshape(-1, 2), reference) == len(cells)


def test_the_hypervolume_of_known_points():
    losses = np.array([[0.5, 2.0], [1.0, 1.0], [9.0, -9.0], [1.5, 1.5]])
    assert hypervolume(losses, (2.0, 3.0)) == pytest.approx(1.5 * 1.0 + 1.0 * 1.0)


@given(st.lists(st.tuples(*[st.integers(0, 4)] * 3), max_size=25), st.integers(1, 3))
def test_front_numbers_are_those_of_taking_one_front_off_after_another(points, n_objectives):
    points = [point[:n_objectives] for point in points]
    losses, numbers, remaining = np.array(points, dtype=float).reshape(-1, n_objectives), {}, set(range(len(points)))
    for number in range(len(points)):
        front = {i for i in remaining if not any(dominates(points[j], points[i]) for j in remaining)}
        numbers |= dict.fromkeys(front, number)
        remaining -= front
    expected = [numbers[i] for i in range(len(points))]
    assert front_numbers(losses).tolist() == expected


def test_many_fronts_of_equal_points_are_numbered():
    losses = np.random.default_rng(0).permutation(np.repeat(np.arange(300.0), 2))[:, None] * [1.0, 2.0]
    assert front_numbers(losses).tolist() == losses[:, 0].astype(int).tolist()


@given(POINTS, POINTS, st.tuples(st.integers(-1, 6), st.integers(-1, 6)))
def test_the_gain_of_a_point_is_what_it_adds_to_the_hypervolume(points, front, reference):
    points, front = (np.array(one, dtype=float).reshape(-1, 2) for one in (points, front))
    before = hypervolume(front, reference)
    expected = [hypervolume(np.concatenate([front, point[None]]), reference) - before for point in points]
    assert hypervolume_gain(points, front, reference) == pytest.approx(np.array(expected))
