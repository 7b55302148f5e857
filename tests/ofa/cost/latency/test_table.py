import math
from dataclasses import replace

import numpy as np
import pytest

import ofa
from ofa.core.errors import SpaceError, TableError
from ofa.cost.latency.table import LatencyTable, latency_metrics
from ofa.devices.device import Timing


def rows_of(family, n=50):
    return family.space.sample(n, np.random.default_rng(3))


def test_where_networks_take_as_long_as_their_blocks_the_prediction_is_the_plain_sum(small, table):
    rows = rows_of(small)
    mean, low, high = table.predict(rows)
    assert mean == pytest.approx(replace(table, networks={})(rows), rel=0.02)
    assert np.array_equal(table(rows), mean)
    assert np.all((low <= mean) & (mean <= high))
    assert len(set(mean)) > 10


def test_networks_that_take_longer_than_their_blocks_are_predicted_as_slow(small, table):
    plain_ms = replace(table, networks={})(rows_of(small))
    slower = {a: replace(timing, median_ms=0.3 + 1.5 * timing.median_ms) for a, timing in table.networks.items()}
    assert replace(table, networks=slower)(rows_of(small)) == pytest.approx(0.3 + 1.5 * plain_ms, rel=0.03)


def test_the_table_is_a_cost_with_a_name_and_a_unit(table):
    assert (table.name, table.unit) == ("latency_ms", "ms")


def test_the_batch_is_that_of_the_device_and_1_in_tables_that_do_not_say(table):
    assert replace(table, device={"device": "mine", "batch": 8}).batch == 8
    assert replace(table, device={"device": "mine"}).batch == 1


def test_no_archs_no_latencies(small, table):
    for one in (table, replace(table, networks={}), replace(table, rows={})):
        assert one(rows_of(small, 0)).shape == (0,)
        assert [part.shape for part in one.predict(rows_of(small, 0))] == [(0,)] * 3


def test_rows_of_another_space_are_refused(small, table):
    for one in (table, replace(table, networks={}), replace(table, rows={})):
        for wrong in (rows_of(small)[:, 1:], rows_of(small)[0], rows_of(small) + 100, rows_of(small).astype(float)):
            with pytest.raises(SpaceError):
                one(wrong)
            with pytest.raises(SpaceError):
                one.predict(wrong)


def test_evaluation_compares_the_predictions_of_the_checks_with_their_measurements(small, table):
    checks = {arch: replace(timing, median_ms=1.2 * timing.median_ms) for arch, timing in table.checks.items()}
    slower = replace(table, checks=checks)
    prediction = table.predict(small.space.rows(checks))
    measured = [timing.median_ms for timing in checks.values()]
    assert slower.evaluate() == latency_metrics(measured, *prediction)
    assert slower.evaluate().mean_error_percent == pytest.approx(100 / 6, rel=0.1)
    assert slower.evaluate().in_interval_percent == 0.0
    assert table.evaluate().in_interval_percent == 100.0


def test_evaluation_is_of_the_measured_family_whatever_is_predicted(small, table, path):
    other = ofa.create_family(small.name, **{**small.options, "resolutions": [16]})
    assert LatencyTable.load(path, other).evaluate() == table.evaluate()


def test_a_table_without_checks_cannot_be_evaluated(table):
    with pytest.raises(TableError, match=r"0 checks.* has no checks to evaluate; profile the device with some"):
        replace(table, checks={}).evaluate()


def test_a_family_of_other_options_misses_rows(path):
    wider = ofa.create_family("small_mobilenet_v3", in_channels=1, resolutions=[16], width_mult=1.0)
    with pytest.raises(TableError, match=r"on 'pretend'.* has no row for .*; profile the device for this family"):
        LatencyTable.load(path, wider)(rows_of(wider))


def test_the_overhead_is_part_of_every_latency(small, table):
    slow = replace(table, networks={}, overhead=Timing(1e6, 0.0, 1))
    assert slow(rows_of(small)).tolist() == [1e6] * 50  # blocks faster than the overhead add nothing


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
