import numpy as np
import pytest
import torch
from scipy.stats import kendalltau, norm

import ofa
from ofa.core.errors import CheckpointError, PredictorError, SpaceError
from ofa.core.plugins import plugin_names
from ofa.core.tensors import read_tensors, write_tensors
from ofa.predict.predictor import GROUP, Scores, calibration_factor
from ofa.space.choice import Choice
from ofa.space.search_space import SearchSpace

ALL = plugin_names(GROUP)


@pytest.fixture(scope="module", params=ALL)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def predictor(create, name, samples):
    return create(name, features={"size": lambda rows: 1.0 + rows.sum(axis=1)}).fit(*samples)


def test_200_samples_suffice_to_rank_archs_by_an_additive_accuracy(create, name, space, additive):
    rows = space.unique(space.sample(500, np.random.default_rng(1)))
    measured = additive(rows)
    settings = {"trees": {"trees": 100, "members": 5}, "mlp": {"hidden": 64}}
    predictor = create(name, **settings.get(name, {})).fit(rows[:200], measured[:200])
    assert kendalltau(predictor(rows[200:]), measured[200:]).statistic > 0.75
    assert np.sqrt(np.mean((predictor(rows[200:]) - measured[200:]) ** 2)) < 0.5 * measured.std()


def test_intervals_hold_the_accuracies_of_nine_archs_in_ten(create, name, space, additive):
    rng = np.random.default_rng(2)
    rows = space.unique(space.sample(600, rng))
    measured = additive(rows) + rng.normal(0, 0.5, len(rows))
    _, low, high = create(name).fit(rows[:150], measured[:150]).predict(rows[150:])
    assert 0.8 <= np.mean((low <= measured[150:]) & (measured[150:] <= high)) <= 0.99


def test_predictions_lie_within_their_intervals_and_calling_gives_the_means(predictor, space):
    rows = space.sample(50, np.random.default_rng(3))
    mean, low, high = predictor.predict(rows)
    assert mean.shape == low.shape == high.shape == (50,)
    assert (low < mean).all()
    assert (mean < high).all()
    assert np.array_equal(predictor(rows), mean)


def test_draws_lie_around_the_predictions_and_mostly_within_their_intervals(predictor, space):
    rows = space.sample(40, np.random.default_rng(4))
    mean, low, high = predictor.predict(rows)
    drawn, again = (predictor.draw(rows, 500, np.random.default_rng(5)) for _ in range(2))
    assert np.array_equal(drawn, again)
    assert drawn.shape == (500, 40)
    assert np.median(drawn, axis=0) == pytest.approx(mean, abs=0.2 * float(np.max(high - low)))
    assert np.mean((low <= drawn) & (drawn <= high)) == pytest.approx(0.9, abs=0.05)


def test_the_same_seed_gives_the_same_predictor(create, name, samples):
    first, again = (create(name, seed=7).fit(*samples) for _ in range(2))
    for one, other in zip(first.predict(samples[0]), again.predict(samples[0]), strict=True):
        assert np.array_equal(one, other)


def test_the_global_generator_is_left_as_it_was(create, name, samples):
    state = torch.get_rng_state()
    create(name).fit(*samples)(samples[0])
    assert torch.equal(torch.get_rng_state(), state)


def test_rows_that_are_not_canonical_are_read_as_the_archs_they_stand_for(predictor, space):
    rows = np.random.default_rng(5).integers(0, [len(c.values) for c in space.choices], size=(50, len(space.choices)))
    assert not np.array_equal(rows, space.canonical(rows))
    assert predictor(rows) == pytest.approx(predictor(space.canonical(rows)), rel=1e-12)


def test_predictions_do_not_depend_on_which_archs_are_predicted_together(predictor, space):
    rows = space.sample(5000, np.random.default_rng(6))
    assert predictor(rows)[4321:4331] == pytest.approx(predictor(rows[4321:4331]), rel=1e-6)
    assert predictor(rows[:0]).shape == (0,)


def test_cross_validated_predictions_do_not_know_the_accuracy_that_they_predict(create, name, samples):
    rows, measured = samples
    warp = {} if name == "auto" else {"warp": "none"}
    before = create(name, **warp).fit(rows, measured).cross_validated().mean
    changed = measured.copy()
    changed[0] += 1000 * measured.std()  # it moves the mean, the spread and all other predictions
    after = create(name, **warp).fit(rows, changed).cross_validated().mean
    assert after[0] < changed[0] - 900 * measured.std()
    assert len(before) == len(rows)


def test_an_arch_that_is_given_several_times_counts_once(create, name, samples, space):
    rows, top1 = samples
    order = np.concatenate([np.arange(len(rows)), np.random.default_rng(6).permutation(3 * len(rows)) % len(rows)])
    once, often = create(name).fit(rows, top1), create(name).fit(rows[order], top1[order])
    asked = space.sample(20, np.random.default_rng(7))
    assert np.array_equal(once.predict(asked), often.predict(asked))
    for expected, got in zip(once.cross_validated(), often.cross_validated(), strict=True):
        assert np.array_equal(got, expected[order])


def test_an_arch_that_was_measured_several_times_has_the_mean_and_a_smaller_error(create, samples):
    rows, top1 = samples
    apart = np.concatenate([top1 - 1, top1 + 1])
    twice = create("gp").fit(np.tile(rows, (2, 1)), apart, np.full(2 * len(rows), 2**0.5))
    assert twice(rows) == pytest.approx(create("gp").fit(rows, top1, np.full(len(rows), 1.0))(rows))


def test_equal_accuracies_are_predicted_for_all(create, name, samples):
    rows, _ = samples
    mean, low, high = create(name).fit(rows, np.full(len(rows), 70.0)).predict(rows)
    assert mean == pytest.approx(np.full(len(rows), 70.0), abs=1e-3)
    assert np.isfinite(low).all()
    assert np.isfinite(high).all()


def test_two_archs_are_enough_for_a_fit(create, name, samples):
    rows = samples[0][:2]
    mean, low, high = create(name).fit(rows, np.array([60.0, 70.0])).predict(rows)
    assert 55 < mean[0] <= mean[1] < 75
    assert (low < high).all()


def test_accuracies_with_much_noise_tell_less(create, space, additive):
    rng = np.random.default_rng(8)
    rows = space.unique(space.sample(300, rng))
    truth = additive(rows)
    noise = np.where(np.arange(100) < 50, 0.01, 20.0)
    measured = truth[:100] + noise * rng.normal(size=100)
    for name in ("gp", "ridge"):
        informed = create(name, warp="none").fit(rows[:100], measured, noise)(rows[100:])
        plain = create(name, warp="none").fit(rows[:100], measured)(rows[100:])
        errors = [np.sqrt(np.mean((predicted - truth[100:]) ** 2)) for predicted in (informed, plain)]
        assert errors[0] < 0.7 * errors[1]


@pytest.mark.parametrize("family_name", ofa.list_families())
def test_a_predictor_reads_archs_of_every_family(family_name, create):
    family = ofa.create_family(family_name, num_classes=10)
    rows = family.space.unique(family.space.sample(150, np.random.default_rng(9)))
    parts = np.random.default_rng(10).uniform(0, 1, size=family.space.one_hot(rows).shape[1])
    accuracy = 70 + family.space.one_hot(rows) @ parts
    predictor = create("auto", family, candidates=["ridge"]).fit(rows[:100], accuracy[:100])
    assert np.corrcoef(predictor(rows[100:]), accuracy[100:])[0, 1] > 0.5


# Wrong input


@pytest.mark.parametrize("steps", range(1, 22))
def test_any_number_of_steps_is_trained(create, samples, steps):
    assert np.isfinite(
        create("transformer", steps=steps, members=2, hidden=8, layers=1).fit(*samples)(samples[0])
    ).all()


def test_rows_of_another_space_are_refused(create, name, predictor, samples):
    rows, measured = samples
    for wrong in (rows[:, 1:], rows.astype(float), rows + 10):
        for call in (predictor, predictor.predict, lambda rows: create(name).fit(rows, measured)):
            with pytest.raises(SpaceError, match=r"rows (are|have)"):
                call(wrong)


@pytest.mark.parametrize(
    "broken", ["one arch", "one arch twice", "nan", "inf", "fewer accuracies", "a column of accuracies"]
)
def test_a_fit_needs_two_archs_and_a_finite_accuracy_for_each(create, name, samples, broken):
    rows, measured = samples[0], samples[1].copy()
    if broken == "one arch":
        rows, measured = rows[:1], measured[:1]
    elif broken == "one arch twice":
        rows, measured = rows[[0, 0]], measured[:2]
    elif broken == "fewer accuracies":
        measured = measured[1:]
    elif broken == "a column of accuracies":
        measured = measured[:, None]
    else:
        measured[3] = float(broken)
    with pytest.raises(
        PredictorError, match=r"a predictor needs 2 or more (different archs|archs with a finite acc.*), not"
    ):
        create(name).fit(rows, measured)


@pytest.mark.parametrize("noise", [[1.0], [-1.0] * 60, [np.nan] * 60])
def test_noise_is_one_deviation_for_each_arch(create, name, samples, noise):
    with pytest.raises(PredictorError, match="noise of accuracies is one finite standard deviation for each arch"):
        create(name).fit(*samples, np.array(noise))


def test_a_predictor_that_was_not_fitted_says_so(create, name, samples):
    with pytest.raises(PredictorError, match=rf"predictor '{name}' was not fitted; call fit"):
        create(name)(samples[0])
    with pytest.raises(PredictorError, match=rf"predictor '{name}' has left out no archs; call fit"):
        create(name).cross_validated()
    assert "not fitted" in repr(create(name))


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("gpp", {}, r"unknown predictor 'gpp'; did you mean gp\?"),
        ("gp", {"stepps": 3}, r"predictor 'gp': stepps: unknown key; did you mean steps\?"),
        ("mlp", {"hidden": 0}, r"predictor 'mlp': hidden = 0: input should be greater than or equal to 1"),
        ("auto", {"candidates": ["gp", "auto"]}, r"there is no predictor 'auto'; choose from gcn, gp, mlp"),
        ("auto", {"candidates": []}, r"predictor 'auto': candidates = .*: tuple should have at least 1 item"),
        ("ridge", {"warp": "log"}, r"predictor 'ridge': warp = 'log': input should be 'auto', 'none' or 'ranks'"),
    ],
)
def test_unknown_names_and_settings_are_refused(space, name, settings, message):
    with pytest.raises(PredictorError, match=message):
        ofa.predict.create(name, space, **settings)


# Files


def test_a_predictor_that_was_saved_and_loaded_predicts_the_same(predictor, samples, space, tmp_path):
    predictor.save(tmp_path / "p.safetensors")
    loaded = ofa.predict.load(tmp_path / "p.safetensors", space, features=predictor.encoding.features)
    for after, before in zip(loaded.predict(samples[0]), predictor.predict(samples[0]), strict=True):
        assert np.array_equal(after, before)
    assert [path.name for path in tmp_path.iterdir()] == ["p.safetensors"]
    with pytest.raises(PredictorError, match="has left out no archs"):
        loaded.cross_validated()


def test_a_predictor_of_another_space_or_without_its_features_is_refused(create, name, tmp_path):
    first, second = (SearchSpace([Choice("resolution", (16, 32)), Choice(name, (1, 2))]) for name in ("a", "b"))
    rows, path = first.rows([first.smallest, first.largest] * 5), tmp_path / "p.safetensors"
    create(name, first, features={"size": lambda rows: 1.0 + rows[:, 0]}).fit(rows, np.arange(10.0)).save(path)
    with pytest.raises(CheckpointError, match="was fitted on another search space; fit it again"):
        ofa.predict.load(path, second)
    with pytest.raises(CheckpointError, match="reads size; give these features, or fit it again"):
        ofa.predict.load(path, first)


def test_damaged_or_other_files_are_refused(predictor, space, tmp_path):
    path, features = tmp_path / "p.safetensors", predictor.encoding.features
    predictor.save(path)
    whole, (tensors, metadata) = path.read_bytes(), read_tensors(path)
    for length in (0, 20, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"p\.safetensors is missing, truncated"):
            ofa.predict.load(path, space, features=features)
    for name in list(tensors)[:20]:
        write_tensors(path, {key: tensor for key, tensor in tensors.items() if key != name}, metadata)
        with pytest.raises(CheckpointError, match=r"p\.safetensors is not a predictor \("):
            ofa.predict.load(path, space, features=features)
    write_tensors(path, {})
    with pytest.raises(CheckpointError, match="is not a predictor; fit it again"):
        ofa.predict.load(path, space, features=features)


# Calibration


def test_calibration_widens_intervals_until_they_hold_their_share():
    rng = np.random.default_rng(10)
    scores = Scores(np.zeros(2000), np.full(2000, 0.5))
    factor = calibration_factor(rng.normal(0, 1.5, 2000), scores)
    assert factor == pytest.approx(3, rel=0.1)
    assert calibration_factor(np.full(5, 1e-3), Scores(np.zeros(5), np.ones(5))) == 1  # too few to narrow them
    exact = calibration_factor(np.full(50, norm.ppf(0.95)), Scores(np.zeros(50), np.ones(50)))
    assert exact == pytest.approx(1)


def test_a_predictor_is_made_again_without_what_was_of_no_use(predictor, name, samples):
    again = predictor.again()
    assert not again.state
    assert again.encoding is predictor.encoding
    if name == "auto":
        assert set(again.settings.candidates) == set(predictor.weights)
    else:
        rows, measured = samples
        assert np.array_equal(again.fit(rows, measured)(rows), predictor(rows))
