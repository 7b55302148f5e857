import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import linprog

from export.policies.level_energy import energies_mj, image_latencies_ms, upper_hull
from ofa.core.errors import BundleError
from tests.levels import level


def made(*energies):
    return [level({}, "", latency_ms=8.0 / (i + 1), batch=2, energy_mj=mj) for i, mj in enumerate(energies)]


def test_energies_are_those_of_the_levels_or_a_power_times_the_latency_of_an_image():
    assert energies_mj(made(5.0, 3.0)) == (5.0, 3.0)
    assert energies_mj(made(5.0, 3.0), power_w=2.0) == (8.0, 4.0)
    assert image_latencies_ms(made(None, None)) == (4.0, 2.0)


def test_one_unknown_energy_makes_all_unknown():
    assert energies_mj(made(5.0, None)) is None


def test_a_power_out_of_range_is_refused():
    with pytest.raises(BundleError, match="power_w = 0 is not allowed"):
        energies_mj(made(5.0), power_w=0)


def test_the_hull_goes_from_the_cheapest_to_the_most_accurate_level_without_those_below_a_mixture():
    assert upper_hull((8.0, 4.0, 2.0, 1.0), (95.0, 93.0, 91.0, 87.0)) == (3, 2, 1, 0)
    assert upper_hull((8.0, 4.0, 1.0), (95.0, 88.0, 87.0)) == (2, 0)
    assert upper_hull((8.0, 4.0, 1.0), (90.0, 93.0, 87.0)) == (2, 1)
    assert upper_hull((2.0, 2.0, 2.0), (90.0, 93.0, 93.0)) == (1,)


levels = st.lists(st.tuples(st.integers(1, 50), st.integers(0, 100)), min_size=1, max_size=6)


@given(levels, st.floats(0, 1))
def test_mixing_levels_of_the_hull_is_as_accurate_as_any_mixture(pairs, position):
    energies, top1 = (np.array(values, dtype=float) for values in zip(*pairs, strict=True))
    hull = list(upper_hull(energies, top1))
    budget = energies.min() + position * (energies.max() - energies.min())
    best = linprog(-top1, A_ub=[energies], b_ub=[budget], A_eq=[np.ones(len(top1))], b_eq=[1.0], bounds=(0, 1))
    assert np.interp(budget, energies[hull], top1[hull]) == pytest.approx(-best.fun, abs=1e-6)
    assert all(top1[a] < top1[b] and energies[a] < energies[b] for a, b in itertools.pairwise(hull))
