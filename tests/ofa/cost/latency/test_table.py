import json
import warnings
from dataclasses import replace

import numpy as np
import pytest

import ofa
from ofa.core.errors import TableError
from ofa.cost.latency.profile import TableConfig, profile
from ofa.cost.latency.table import InterpolatedLatency, LatencyTable, Measured
from ofa.devices.device import Timing

OVERHEAD_MS = 0.05
QUICK = TableConfig(networks=12, checks=4, min_rounds=2, max_rounds=2)


@pytest.fixture(scope="module")
def small():
    return ofa.create_family("small_mobilenet_v3", in_channels=1, resolutions=[12, 16], width_mult=0.5)


@pytest.fixture(scope="module")
def table(small, pretend):
    return profile(small, pretend(), np.random.default_rng(0), QUICK)


@pytest.fixture
def path(table, tmp_path):
    table.save(tmp_path / "table.json")
    return tmp_path / "table.json"


def edit(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def rows(family, n=50):
    return family.space.sample(n, np.random.default_rng(3))


def test_the_plain_sum_is_the_overhead_and_what_each_block_adds(small, table):
    for row, milliseconds in zip(rows(small), table.plain_sum(rows(small)), strict=True):
        resolution = int(small.space.decode(row)["resolution"])
        timings = [
            table.rows[repr(block), slot.size(resolution)] for slot, block in small.blocks(row) if block is not None
        ]
        plain = OVERHEAD_MS + sum(max(t.median_ms - OVERHEAD_MS, 0) for t in timings)
        assert milliseconds == pytest.approx(plain, rel=1e-12)


def test_blocks_faster_than_the_overhead_add_nothing(small, table):
    slow = replace(table, overhead=Timing(1e6, 0.0, 1))
    assert slow.plain_sum(rows(small)).tolist() == [1e6] * 50


def test_where_networks_take_as_long_as_their_blocks_predictions_are_the_plain_sum(small, table):
    latency_ms, low_ms, high_ms = table.predict(rows(small))
    assert latency_ms == pytest.approx(table.plain_sum(rows(small)), rel=0.02)
    assert np.array_equal(table(rows(small)), latency_ms)
    assert np.all((low_ms <= latency_ms) & (latency_ms <= high_ms))
    assert len(set(latency_ms)) > 10


def test_networks_that_take_longer_than_their_blocks(small, table):
    slower = tuple(
        Measured(network.arch, replace(network.timing, median_ms=0.3 + 1.5 * network.timing.median_ms))
        for network in table.networks
    )
    expected = 0.3 + 1.5 * table.plain_sum(rows(small))
    assert replace(table, networks=slower)(rows(small)) == pytest.approx(expected, rel=0.03)


def test_without_a_measured_network_nothing_is_known_of_the_error(small, table):
    latency_ms, low_ms, high_ms = replace(table, networks=()).predict(rows(small))
    assert np.array_equal(latency_ms, table.plain_sum(rows(small)))
    assert set(low_ms) == {0.0}
    assert set(high_ms) == {np.inf}


def test_many_archs_are_predicted_as_few_are(small, table, monkeypatch):
    whole = table.predict(rows(small))
    monkeypatch.setattr("ofa.cost.block_table._AT_ONCE", 7)
    for parts, at_once in zip(table.predict(rows(small)), whole, strict=True):
        assert parts == pytest.approx(at_once, rel=1e-12)
    assert [part.shape for part in table.predict(rows(small, 0))] == [(0,)] * 3


# Resolutions that were not measured


def test_other_resolutions_lie_between_and_are_told(small, path):
    between = ofa.create_family(small.name, **{**small.options, "resolutions": [12, 14, 16]})
    table = LatencyTable.load(path, between)
    arch = dict(between.space.largest)
    at = {r: between.space.rows([between.space.arch({**arch, "resolution": r})]) for r in (12, 14, 16)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        low, high = table.predict(at[12]), table.predict(at[16])
    with pytest.warns(InterpolatedLatency, match=r"of 'pretend' was measured at \[12, 16\] pixels.*profile the device"):
        middle = table.predict(at[14])
    assert low.latency_ms < middle.latency_ms < high.latency_ms
    width = {name: float(np.log(p.high_ms / p.low_ms)[0]) for name, p in (("high", high), ("middle", middle))}
    assert width["middle"] > 1.5 * width["high"]


@pytest.mark.parametrize("resolution", [8, 32])
def test_resolutions_beyond_those_measured(small, path, resolution):
    beyond = ofa.create_family(small.name, **{**small.options, "resolutions": [resolution]})
    with pytest.warns(InterpolatedLatency):
        predicted = LatencyTable.load(path, beyond).predict(beyond.space.sample(20, np.random.default_rng(0)))
    assert all(np.isfinite(part).all() and (part > 0).all() for part in predicted)


# Files


def test_a_saved_table_predicts_the_same(small, table, path):
    for loaded in (LatencyTable.load(path), LatencyTable.load(path, small)):
        assert np.array_equal(loaded(rows(small)), table(rows(small)))
        assert loaded.checks == table.checks
        assert (dict(loaded.device), loaded.date, loaded.overhead) == (table.device, table.date, table.overhead)
        assert loaded.family.options == small.options
    assert list(path.parent.iterdir()) == [path]


def test_the_file_has_the_documented_keys(path):
    content = json.loads(path.read_text())
    assert list(content) == [
        "format",
        "version",
        "family",
        "device",
        "date",
        "overhead",
        "rows",
        "networks",
        "checks",
    ]
    assert list(content["rows"][0]) == ["block", "size", "median_ms", "spread_ms", "repeats"]
    assert list(content["checks"][0]) == ["arch", "median_ms", "spread_ms", "repeats"]


def test_a_block_without_a_row(small, path):
    def drop(content):
        content["rows"] = [row for row in content["rows"] if row["block"] != content["rows"][0]["block"]]

    edit(path, drop)
    with pytest.raises(TableError, match=r"table of 'pretend' has no row for ConvNorm\(.*\); profile"):
        LatencyTable.load(path)(rows(small))


def test_a_table_of_another_family(path):
    with pytest.raises(TableError, match="is a table of family 'small_mobilenet_v3', not of 'ofa_mobilenet_v3'"):
        LatencyTable.load(path, ofa.create_family("ofa_mobilenet_v3"))


def test_a_family_of_other_options_misses_rows(path):
    wider = ofa.create_family("small_mobilenet_v3", in_channels=1, resolutions=[16], width_mult=1.0)
    with pytest.raises(TableError, match="has no row for"):
        LatencyTable.load(path, wider)(rows(wider))


def without(key):
    return lambda content: content.pop(key)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.update(version=1), "is ofa-latency-table version 1, not ofa-latency-table 2"),
        (lambda content: content.update(format="table"), "is table version 2"),
        *(
            (without(key), "is not a readable latency table")
            for key in ("format", "family", "rows", "overhead", "date")
        ),
        (lambda content: content["rows"][3].pop("size"), "is not a readable latency table"),
        (lambda content: content["rows"][3].update(unit="s"), "is not a readable latency table"),
        (lambda content: content["rows"][3].update(median_ms="1"), "is not a readable latency table"),
        (lambda content: content["rows"][3].update(median_ms=None), "is not a readable latency table"),
        (lambda content: content["overhead"].update(median_ms=float("nan")), "is not a readable latency table"),
        (lambda content: content["checks"].append(3), "is not a readable latency table"),
        (lambda content: content.update(rows=3), "is not a readable latency table"),
    ],
)
def test_wrong_tables(path, change, message):
    edit(path, change)
    with pytest.raises(TableError, match=message) as caught:
        LatencyTable.load(path)
    assert str(path) in str(caught.value)


def test_damaged_or_missing_tables(path):
    whole = path.read_bytes()
    for content in (b"", whole[:-2], whole[: len(whole) // 2], b"[]", b"null", b"\xff\xfe"):
        path.write_bytes(content)
        with pytest.raises(TableError, match=r"is not a readable latency table .*; profile the device again"):
            LatencyTable.load(path)
    with pytest.raises(TableError, match=r"nowhere\.json is not a readable"):
        LatencyTable.load(path.with_name("nowhere.json"))
