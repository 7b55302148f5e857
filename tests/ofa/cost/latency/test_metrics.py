import math

import pytest

from ofa.cost.latency.metrics import agreement


def test_agreement():
    found = agreement([1.0, 2.0, 4.0, 5.0], [1.05, 1.0, 5.0, 6.0])
    assert found.mean_error_percent == pytest.approx((5 + 50 + 25 + 20) / 4)
    assert (found.within_10_percent, found.n) == (25.0, 4)
    assert found.spearman == pytest.approx(0.8)
    assert math.isnan(agreement([1.0, 1.0], [1.0, 2.0]).spearman)
