import warnings
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import ofa
from ofa.core.errors import TableError
from ofa.cost import block_table
from ofa.cost.latency.block_model import InterpolatedLatency, block_latency
from ofa.cost.latency.table import LatencyTable
from ofa.devices.device import Timing

OVERHEAD_MS = 0.05


def rows_of(family, n=50):
    return family.space.sample(n, np.random.default_rng(3))


def with_resolutions(family, *resolutions):
    return ofa.create_family(family.name, **{**family.options, "resolutions": list(resolutions)})


# Single blocks


class Block:
    def __repr__(self):
        return "Block()"


def timed(table, **sizes_ms):
    """The cost of one block that was measured at some sizes, such as `s10=1.5`, beside another block."""
    rows = {("Block()", int(key[1:])): Timing(ms + OVERHEAD_MS, 0.0, 1) for key, ms in sizes_ms.items()}
    return block_latency(replace(table, rows=rows | {("Other()", 15): Timing(99.0, 0.0, 1)}))


def test_a_measured_block_costs_its_timing_less_the_overhead(table):
    cost = timed(table, s10=1.5, s20=2.5)
    assert [cost(Block(), size) for size in (10, 20)] == pytest.approx([1.5, 2.5])
    faster = replace(table, rows={("Block()", 10): Timing(OVERHEAD_MS / 2, 0.0, 1)})
    assert block_latency(faster)(Block(), 10) == 0.0


@given(st.integers(1, 60), st.floats(0.0, 2.0), st.floats(0.0, 0.01))
def test_between_and_beyond_measured_sizes_the_cost_is_linear_in_the_pixels(table, size, constant_ms, per_pixel_ms):
    timed_ms = {f"s{s}": constant_ms + per_pixel_ms * s**2 for s in (30, 10, 20)}
    assert timed(table, **timed_ms)(Block(), size) == pytest.approx(constant_ms + per_pixel_ms * size**2, abs=1e-9)


def test_between_two_sizes_only_these_two_matter_and_no_cost_is_negative(table):
    cost = timed(table, s10=1.0, s20=4.0, s30=5.0)
    assert cost(Block(), 15) == pytest.approx(1.0 + 3.0 * (15**2 - 10**2) / (20**2 - 10**2))
    assert cost(Block(), 40) == pytest.approx(4.0 + 1.0 * (40**2 - 20**2) / (30**2 - 20**2))
    assert timed(table, s10=0.5, s20=4.0)(Block(), 5) == 0.0


def test_a_block_measured_at_one_size_costs_in_proportion_to_the_pixels(table):
    assert [timed(table, s10=1.0)(Block(), size) for size in (10, 20, 5)] == pytest.approx([1.0, 4.0, 0.25])


def test_a_block_that_was_not_measured_is_one_error(table):
    with pytest.raises(TableError, match=r"has no row for .*; profile the device for this family"):
        timed(table, s10=1.0)(object(), 10)


# Without measured networks


def test_the_plain_sum_is_the_overhead_and_what_each_block_adds(small, table):
    for row, milliseconds in zip(rows_of(small), replace(table, networks={})(rows_of(small)), strict=True):
        resolution = int(small.space.decode(row)["resolution"])
        timings = [
            table.rows[repr(block), slot.size(resolution)] for slot, block in small.blocks(row) if block is not None
        ]
        plain_ms = OVERHEAD_MS + sum(max(t.median_ms - OVERHEAD_MS, 0) for t in timings)
        assert milliseconds == pytest.approx(plain_ms, rel=1e-12)


def test_the_error_of_the_plain_sum_is_not_known(small, table):
    plain = replace(table, networks={})
    mean, low, high = plain.predict(rows_of(small))
    assert np.array_equal(mean, plain(rows_of(small)))
    assert set(low) == {0.0}
    assert set(high) == {np.inf}


# With measured networks


def test_many_archs_are_predicted_as_a_few_at_a_time(small, table, monkeypatch):
    whole = table.predict(rows_of(small))
    monkeypatch.setattr(block_table, "_CHUNK", 7)
    for parts, at_once in zip(table.predict(rows_of(small)), whole, strict=True):
        assert parts == pytest.approx(at_once, rel=1e-12)
    assert table(rows_of(small)) == pytest.approx(whole.mean, rel=1e-12)


def test_what_a_choice_costs_at_one_resolution_is_learned(small, table):
    """A choice may cost more in whole networks than its blocks do alone, and only at one resolution."""

    def latencies_ms(rows):
        archs = [small.space.decode(row) for row in rows]
        slower = [arch["resolution"] == 16 and arch["stage1.block0.kernel"] == 5 for arch in archs]
        return replace(table, networks={})(rows) * np.where(slower, 1.3, 1.0), np.array(slower)

    training = small.space.sample(200, np.random.default_rng(1))
    timings = [Timing(float(ms), 0.0, 1) for ms in latencies_ms(training)[0]]
    networks = dict(zip(map(small.space.decode, training), timings, strict=True))
    expected_ms, slower = latencies_ms(rows_of(small))
    assert 0 < slower.sum() < len(slower)
    assert replace(table, networks=networks)(rows_of(small)) == pytest.approx(expected_ms, rel=0.02)


def test_imprecise_measurements_make_wider_fits_not_wilder_ones(small, table):
    """Noise that the measurements admit to is not fitted, so predictions stay near the plain sum."""
    rng = np.random.default_rng(0)
    plain_ms = replace(table, networks={})(rows_of(small, 200))
    off = {}
    for spread in (0.0, 1.0):
        networks = {}
        for arch, timing in table.networks.items():
            ms = timing.median_ms * float(np.exp(0.1 * rng.standard_normal()))
            networks[arch] = Timing(ms, spread * 0.1 * ms / 0.93, 1)
        off[spread] = np.abs(np.log(replace(table, networks=networks)(rows_of(small, 200)) / plain_ms)).std()
    assert off[1.0] < off[0.0]


@pytest.mark.parametrize("seed", range(20))
def test_however_noisy_a_few_networks_are_every_prediction_is_positive_and_inside_its_interval(small, table, seed):
    """A busy device stretches some timings a hundredfold."""
    rng = np.random.default_rng(seed)
    stretch = 10 ** (2 * rng.random(4))
    networks = {a: Timing(t.median_ms * s, 0.0, 2) for (a, t), s in zip(table.networks.items(), stretch, strict=False)}
    noisy = replace(table, networks=networks)
    mean, low, high = noisy.predict(rows_of(small, 200))
    assert mean.min() > 0
    assert (low <= mean).all()
    assert (mean <= high).all()
    assert np.array_equal(noisy(rows_of(small, 200)), mean)


def test_the_error_of_the_fastest_bursts_is_another(small, table):
    networks = {arch: replace(t, spread_ms=0.15 * t.median_ms, repeats=3) for arch, t in table.networks.items()}
    noisy = {
        a: replace(t, median_ms=t.median_ms * (1.1 if i % 2 else 0.9)) for i, (a, t) in enumerate(networks.items())
    }
    of_all, of_fastest = (
        replace(table, networks=noisy, device={"device": "pretend", "bursts": bursts}) for bursts in ("all", "fastest")
    )
    assert not np.array_equal(of_all(rows_of(small)), of_fastest(rows_of(small)))
    single = {arch: replace(timing, repeats=1) for arch, timing in noisy.items()}
    unknown = replace(of_fastest, networks=single)  # the error of one burst is infinite, so it is not used
    exact = replace(of_fastest, networks={arch: replace(t, spread_ms=0.0) for arch, t in noisy.items()})
    assert np.array_equal(unknown(rows_of(small)), exact(rows_of(small)))


# Resolutions that were not measured


def test_other_resolutions_lie_between_the_measured_ones_with_a_warning_and_wider_intervals(small, path):
    between = with_resolutions(small, 12, 14, 16)
    table, arch = LatencyTable.load(path, between), dict(between.space.largest)
    at = {r: between.space.rows([between.space.arch({**arch, "resolution": r})]) for r in (12, 14, 16)}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        low, high = table.predict(at[12]), table.predict(at[16])
    message = r"on 'pretend'.* was measured at \[12, 16\] pixels.*profile the device"
    with pytest.warns(InterpolatedLatency, match=message) as caught:
        middle = table.predict(at[14])
    with pytest.warns(InterpolatedLatency, match=message) as caught_too:
        mean = table(at[14])
    assert [warning.filename for warning in (*caught, *caught_too)] == [__file__] * 2
    assert np.array_equal(mean, middle.mean)
    assert low.mean < middle.mean < high.mean
    widths = {r: float(np.log(p.high / p.low)[0]) for r, p in ((16, high), (14, middle))}
    assert widths[14] > 1.5 * widths[16]


def test_intervals_at_other_resolutions_are_twice_as_wide(small, path, monkeypatch):
    between = with_resolutions(small, 12, 14, 16)
    table = LatencyTable.load(path, between)
    rows = between.space.sample(30, np.random.default_rng(0))
    with pytest.warns(InterpolatedLatency):
        wide = table.predict(rows)
    monkeypatch.setattr("ofa.cost.latency.block_model.BlockModel._find_unmeasured", lambda *_: np.zeros(30, bool))
    normal = table.predict(rows)
    unmeasured = np.array([between.space.decode(row)["resolution"] == 14 for row in rows])
    assert 0 < unmeasured.sum() < 30
    for wide_ms, normal_ms in ((wide.low, normal.low), (wide.high, normal.high)):
        factor = np.where(unmeasured, 2.0, 1.0)
        assert np.log(wide_ms / wide.mean) == pytest.approx(factor * np.log(normal_ms / normal.mean))


@pytest.mark.parametrize("resolution", [8, 32])
def test_resolutions_beyond_the_measured_ones_are_predicted(small, path, resolution):
    beyond = with_resolutions(small, resolution)
    with pytest.warns(InterpolatedLatency):
        predicted = LatencyTable.load(path, beyond).predict(beyond.space.sample(20, np.random.default_rng(0)))
    assert all(np.isfinite(part).all() and (part > 0).all() for part in predicted)


def test_a_family_at_some_of_the_measured_resolutions_is_predicted_as_the_measured_one(small, table, path):
    part = with_resolutions(small, 16)
    archs = [small.space.decode(row) for row in rows_of(small)]
    archs = [arch for arch in archs if arch["resolution"] == 16]
    loaded = LatencyTable.load(path, part)
    assert np.array_equal(loaded(part.space.rows(archs)), table(small.space.rows(archs)))
