import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.policies.request_rate import RequestRate


def counted(rates, step_hours=0.05):
    rate = RequestRate()
    for per_hour in rates:
        rate = rate.counted(round(per_hour * step_hours), step_hours)
    return rate


@given(st.integers(0, 100_000), st.floats(0, 24))
def test_a_steady_rate_goes_on(images, hours):
    rate = RequestRate()
    for _ in range(20):
        rate = rate.counted(images, 0.05)
    assert rate.expected_images(hours) == pytest.approx(20 * images * hours)


def test_before_anything_is_counted_the_expected_rate_holds():
    assert RequestRate().expected_images(3.0, 100.0) == 300.0
    assert RequestRate().expected_images(3.0) == 0.0


def test_a_wrong_expectation_is_corrected_by_what_is_counted():
    rate = counted([1000.0] * 160)
    assert rate.expected_images(1.0, 5000.0) == pytest.approx(1000.0, rel=0.3)
    assert rate.expected_images(8.0, 5000.0) < rate.expected_images(8.0, 50_000.0)


def test_a_burst_is_expected_to_fade():
    burst = counted([1000.0] * 80 + [3000.0] * 20)
    assert burst.expected_images(0.1) == pytest.approx(300.0, rel=0.1)
    assert 1400 * 8 < burst.expected_images(8.0) < 2000 * 8


def test_the_expectation_is_never_negative():
    silent = counted([100_000.0] * 2 + [0.0] * 100)
    assert silent.expected_images(0.5) >= 0.0
