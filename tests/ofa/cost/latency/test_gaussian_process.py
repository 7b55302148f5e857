import math

import numpy as np
import pytest

from ofa import Choice, SearchSpace
from ofa.cost.latency.gaussian_process import NetworkProcess

SPACE = SearchSpace(
    [
        Choice("resolution", (8, 12, 16)),
        Choice("depth", (1, 2, 3, 4)),
        Choice("width", (4, 6, 8)),
        Choice("kernel", (1, 3), needs=("depth", 3)),
    ]
)


def every():
    counts = [range(len(choice.values)) for choice in SPACE.choices]
    return SPACE.unique(np.array(np.meshgrid(*counts)).reshape(len(counts), -1).T)


def milliseconds(rows):
    archs = [SPACE.decode(row) for row in rows]
    work = [a["resolution"] ** 2 * a["depth"] * a["width"] ** 2 * a.get("kernel", 1) ** 2 for a in archs]
    return 0.01 + 1e-6 * np.array(work, dtype=float)


@pytest.fixture(scope="module")
def known():
    rows = every()
    return rows[np.random.default_rng(0).permutation(len(rows))[:30]]


def test_archs_that_were_not_measured_are_predicted(known):
    predicted, low, high = NetworkProcess.fit(SPACE, known, milliseconds(known)).predict(every())
    errors = np.abs(predicted / milliseconds(every()) - 1)
    assert len(every()) == SPACE.size == 54
    assert errors.max() < 0.1
    assert errors.mean() < 0.02
    assert np.all((low < predicted) & (predicted < high))


def test_a_prediction_is_nearer_to_the_truth_than_noisy_measurements(known):
    true, off, widths = milliseconds(known), [], []
    for seed in range(5):
        noise = 0.1 * np.random.default_rng(seed).standard_normal(len(known))
        predicted, low, high = NetworkProcess.fit(SPACE, known, true * np.exp(noise)).predict(known)
        off.append(np.log(predicted / true).std() / noise.std())
        widths.append(np.median(np.log(high / low)) / (2 * 1.645))
    assert np.mean(off) < 0.9
    assert np.mean(widths) == pytest.approx(0.1, rel=0.3)


def test_no_archs(known):
    fitted = NetworkProcess.fit(SPACE, known, milliseconds(known))
    assert [part.shape for part in fitted.predict(known[:0])] == [(0,)] * 3


def test_two_networks_are_enough_to_begin():
    pair = SearchSpace([Choice("resolution", (8,)), Choice("depth", (1, 2))])
    rows = pair.rows([pair.smallest, pair.largest])
    predicted, *_ = NetworkProcess.fit(pair, rows, np.array([1.0, 2.0])).predict(rows)
    assert [math.log(ms) for ms in predicted] == pytest.approx([0.0, math.log(2)], abs=0.05)
