import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofa.core.errors import InfeasibleError
from ofa.pipeline.choose import ROUNDING, choose_levels, spread
from ofa.pipeline.recipe import TargetConfig
from ofa.search.pareto import non_dominated


def entry(latency_ms, top1_percent, size_mib=1.0):
    return {"predicted_latency_ms": latency_ms, "estimated_top1_percent": top1_percent, "size_mib": size_mib}


def front_of(measured, key="predicted_latency_ms"):
    losses = np.array([[one[key], -one["estimated_top1_percent"]] for one in measured])
    return sorted((measured[i] for i in np.flatnonzero(non_dominated(losses))), key=lambda one: one[key])


MEASURED = [entry(1.0, 90.0, 4.0), entry(2.0, 92.0, 3.0), entry(3.0, 91.0, 0.5), entry(4.0, 95.0, 8.0)]


def chosen(**settings):
    config = TargetConfig(name="a", **settings)
    return choose_levels(MEASURED, front_of(MEASURED), config)


def test_each_set_of_limits_gets_the_most_accurate_arch_within_all_of_them():
    assert chosen(limits=[{"latency_ms": 2.5}]) == [MEASURED[1]]
    assert chosen(limits=[{"latency_ms": 3.5, "size_mib": 1.0}]) == [MEASURED[2]]  # not on the front of latency
    assert chosen(limits=[{"latency_ms": 1.0}, {"latency_ms": 9.0}]) == [MEASURED[3], MEASURED[0]]
    assert chosen(limits=[{"latency_ms": 2.0}, {"size_mib": 3.0}]) == [MEASURED[1]]  # one arch serves both


@given(
    st.lists(st.tuples(st.floats(0.1, 10), st.floats(0, 100), st.floats(0.1, 10)), min_size=1, max_size=30),
    st.floats(0.1, 10),
    st.floats(0.1, 10),
)
def test_the_choice_is_that_of_a_plain_loop(values, limit_ms, limit_mib):
    measured = [entry(*one) for one in values]
    within = [v for v in values if v[0] <= limit_ms * ROUNDING and v[2] <= limit_mib * ROUNDING]
    config = TargetConfig(name="a", limits=[{"latency_ms": limit_ms, "size_mib": limit_mib}])
    if within:
        (level,) = choose_levels(measured, front_of(measured), config)
        assert level["estimated_top1_percent"] == max(v[1] for v in within)
        assert level["predicted_latency_ms"] <= limit_ms * ROUNDING
        assert level["size_mib"] <= limit_mib * ROUNDING
    else:
        with pytest.raises(InfeasibleError, match=r"latency_ms = .* \(lowest: .*size_mib = .* \(lowest: .*"):
            choose_levels(measured, front_of(measured), config)


def test_without_limits_levels_are_spread_over_the_front_of_the_objective():
    assert chosen(levels=2) == [MEASURED[3], MEASURED[0]]
    assert chosen(levels=3) == [MEASURED[3], MEASURED[1], MEASURED[0]]
    front = front_of(MEASURED, "size_mib")
    config = TargetConfig(name="a", objective="size_mib", levels=2)
    assert choose_levels(MEASURED, front, config) == [MEASURED[3], MEASURED[2]]


def test_archs_below_the_accuracy_floor_are_not_deployed():
    assert chosen(levels=4, min_top1_percent=92.0) == [MEASURED[3], MEASURED[1]]
    with pytest.raises(InfeasibleError, match=r"no arch of at least 92% meets latency_ms = 1 \(lowest: 2\)"):
        chosen(limits=[{"latency_ms": 1.0}], min_top1_percent=92.0)
    with pytest.raises(InfeasibleError, match=r"min_top1_percent = 96\.0 is above the best accuracy found, 95\.00"):
        chosen(min_top1_percent=96.0)


def test_spread_takes_both_ends_and_even_logarithmic_steps():
    latencies = np.geomspace(1, 16, 17)
    assert spread(latencies, 5).tolist() == [0, 4, 8, 12, 16]
    assert spread(latencies[:3], 5).tolist() == [0, 1, 2]
    assert spread(latencies, 1).tolist() == [16]
    assert spread(np.array([1.0, 1.02, 1.05, 2.0, 2.1]), 4, apart=0.1).tolist() == [0, 4]
    assert spread(np.array([1.0, 1.02, 1.5, 2.1]), 3, apart=0.1).tolist() == [0, 2, 3]
