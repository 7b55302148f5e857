import numpy as np
import pytest
from scipy.stats import kendalltau

import ofa
from ofa.core.errors import PredictorError
from ofa.cost.counted import blocks, macs_m, resolution


def features(family):
    return {"macs_m": macs_m(family), "blocks": blocks(family), "resolution": resolution(family)}


def accuracy(family, rows):
    """Rises with operations, with less at each step, and with pixels."""
    by_name = features(family)
    return 90 - 8 / (1 + by_name["macs_m"](rows)) + 0.05 * by_name["resolution"](rows) + 0.1 * by_name["blocks"](rows)


@pytest.fixture(scope="module")
def families():
    return [
        ofa.create_family(name, num_classes=10, in_channels=1, resolutions=(16, 24, 32))
        for name in ("small_mobilenet_v3", "hybrid_small")
    ]


@pytest.fixture(scope="module")
def fitted(create, families):
    first, _ = families
    rows = first.space.unique(first.space.sample(100, np.random.default_rng(0)))
    return create("summary", first, features=features(first)).fit(rows, accuracy(first, rows))


def test_what_one_family_taught_holds_for_another(fitted, families):
    _, second = families
    moved = fitted.moved_to(second, features(second))
    rows = second.space.sample(200, np.random.default_rng(1))
    assert kendalltau(moved(rows), accuracy(second, rows)).statistic > 0.9


def test_a_predictor_of_another_family_saves_archs(create, fitted, families, tmp_path):
    _, second = families
    rows = second.space.unique(second.space.sample(200, np.random.default_rng(2)))
    measured = accuracy(second, rows)
    moved = fitted.moved_to(second, features(second))
    alone = create("ridge", second).fit(rows[:12], measured[:12])
    started = create("ridge", second, start_from=[moved]).fit(rows[:12], measured[:12])
    taus = [kendalltau(one(rows[12:]), measured[12:]).statistic for one in (alone, started)]
    assert taus[1] > max(0.75, taus[0] + 0.1)
    started.save(tmp_path / "p.safetensors")
    again = ofa.predict.load(tmp_path / "p.safetensors", second, features=features(second))
    np.testing.assert_array_equal(again(rows), started(rows))


def test_it_cannot_be_moved_to_other_features(fitted, families):
    with pytest.raises(PredictorError, match="a summary of blocks, macs_m, resolution cannot be moved to macs_m; give"):
        fitted.moved_to(families[1], {"macs_m": macs_m(families[1])})


def test_without_features_it_has_nothing_to_read(families):
    with pytest.raises(PredictorError, match="'summary' reads features alone; give it some"):
        ofa.predict.create("summary", families[0])
