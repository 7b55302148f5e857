import math

import pytest

from ofa.cost.latency.metrics import latency_metrics

MEASURED, PREDICTED = [1.0, 2.0, 4.0, 5.0], [1.05, 1.0, 5.0, 6.0]


def test_errors_are_relative_to_the_measurement():
    metrics = latency_metrics(MEASURED, PREDICTED)
    assert metrics.mean_error_percent == pytest.approx((5 + 50 + 25 + 20) / 4)
    assert (metrics.within_5_percent, metrics.within_10_percent, metrics.n) == (0.0, 25.0, 4)  # 1.05 is a bit more
    assert latency_metrics([1.0, 2.0], [1.04, 2.3]).within_5_percent == 50.0
    assert metrics.spearman == pytest.approx(0.8)
    assert math.isnan(metrics.in_interval_percent)


def test_both_ends_of_an_interval_count_as_inside():
    low, high = [1.0, 2.1, 3.0, 4.0], [1.1, 3.0, 4.0, 4.9]
    assert latency_metrics(MEASURED, PREDICTED, low, high).in_interval_percent == 50.0


def test_equal_latencies_have_no_ranks():
    assert math.isnan(latency_metrics([1.0, 1.0], [1.0, 2.0]).spearman)
    assert math.isnan(latency_metrics([1.0, 2.0], [1.0, 1.0]).spearman)
