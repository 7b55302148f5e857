import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from ofa import Choice, Family, SearchSpace
from ofa.cost.latency import gaussian_process
from ofa.cost.latency.table import LatencyTable
from ofa.devices.device import Timing


def space_of(*resolutions):
    return SearchSpace(
        [
            Choice("resolution", resolutions),
            Choice("depth", (1, 2, 3, 4)),
            Choice("width", (4, 6, 8)),
            Choice("kernel", (1, 3), needs=("depth", 3)),
        ]
    )


def whole(space):
    """A family of whole networks, which are never built here."""
    return Family.from_builder(space, lambda arch: torch.nn.Identity())


FAMILY = whole(space_of(8, 12, 16))
SPACE = FAMILY.space


def every(space=SPACE):
    counts = [range(len(choice.values)) for choice in space.choices]
    return space.unique(np.array(np.meshgrid(*counts)).reshape(len(counts), -1).T)


def milliseconds(rows, space=SPACE):
    archs = [space.decode(row) for row in rows]
    work = [a["resolution"] ** 2 * a["depth"] * a["width"] ** 2 * a.get("kernel", 1) ** 2 for a in archs]
    return 0.01 + 1e-6 * np.array(work, dtype=float)


def table_of(rows, latency_ms, family=FAMILY):
    networks = {family.space.decode(row): Timing(float(ms), 0.0, 1) for row, ms in zip(rows, latency_ms, strict=True)}
    return LatencyTable(
        measured=family,
        family=family,
        device={},
        date="",
        overhead=Timing(0.0, 0.0, 1),
        rows={},
        networks=networks,
        checks={},
    )


@pytest.fixture(scope="module")
def training():
    rows = every()
    return rows[np.random.default_rng(0).permutation(len(rows))[:30]]


@pytest.fixture(scope="module")
def table(training):
    return table_of(training, milliseconds(training))


def test_networks_that_were_not_measured_are_predicted(table):
    predicted, low, high = table.predict(every())
    errors = np.abs(predicted / milliseconds(every()) - 1)
    assert len(every()) == SPACE.size == 54
    assert errors.max() < 0.1
    assert errors.mean() < 0.02
    assert np.all((low < predicted) & (predicted < high))
    assert np.array_equal(table(every()), predicted)


def test_predictions_average_out_noise_and_intervals_hold_about_nine_in_ten_measurements():
    rows, errors, held = every(), [], []
    true_ms = milliseconds(rows)
    for seed in range(5):
        noise, other_noise = 0.1 * np.random.default_rng(seed).standard_normal((2, len(rows)))
        predicted, low, high = table_of(rows, true_ms * np.exp(noise)).predict(rows)
        errors.append(np.log(predicted / true_ms).std() / noise.std())
        measured_ms = true_ms * np.exp(other_noise)
        held.append(np.mean((low < measured_ms) & (measured_ms < high)))
        assert predicted**2 == pytest.approx(low * high)  # symmetric in the logarithm
    assert np.mean(errors) < 0.8
    assert np.mean(held) == pytest.approx(0.9, abs=0.05)


def test_many_networks_are_predicted_as_a_few_at_a_time(table, monkeypatch):
    at_once = table.predict(every())
    monkeypatch.setattr(gaussian_process, "_CHUNK", 7)
    for parts, whole in zip(table.predict(every()), at_once, strict=True):
        assert parts == pytest.approx(whole, rel=1e-9)
    assert [part.shape for part in table.predict(every()[:0])] == [(0,)] * 3


def test_a_family_at_other_resolutions_is_predicted_by_its_values_not_its_indices(table):
    other = whole(space_of(12, 14))
    predicted = replace(table, family=other)
    assert predicted(every(other.space)) == pytest.approx(milliseconds(every(other.space), other.space), rel=0.1)


def test_two_networks_are_enough_to_begin_with():
    pair = whole(SearchSpace([Choice("resolution", (8,)), Choice("depth", (1, 2))]))
    rows = pair.space.rows([pair.space.smallest, pair.space.largest])
    predicted = table_of(rows, [1.0, 2.0], pair)(rows)
    assert [math.log(ms) for ms in predicted] == pytest.approx([0.0, math.log(2)], abs=0.05)


def test_a_choice_that_starts_at_0_is_scaled_linearly():
    family = whole(SearchSpace([Choice("resolution", (8,)), Choice("depth", (0, 1, 2, 3, 4))]))
    rows = every(family.space)
    predicted = table_of(rows[[0, 1, 3, 4]], np.exp(0.3 * np.array([0, 1, 3, 4])), family)(rows)
    assert predicted[2] == pytest.approx(math.exp(0.6), rel=0.05)
