from statistics import NormalDist

import numpy as np
import pytest
from pydantic import ValidationError
from scipy.stats import kendalltau
from sklearn.neural_network import MLPRegressor

import ofa
from ofa.core.errors import CheckpointError, PredictorError, SpaceError
from ofa.core.tensors import read_tensors, write_tensors
from ofa.predict.denoise import denoised_percent
from ofa.predict.mlp import AccuracyPredictor, PredictorConfig, evaluate
from ofa.space.choice import Choice
from ofa.space.search_space import SearchSpace


@pytest.fixture(scope="module")
def predictor(space, samples, quick):
    return AccuracyPredictor.fit(space, *samples, config=quick, seed=0)


@pytest.fixture
def fitted_members(monkeypatch):
    """Collects the networks that are fitted, each with its features and targets."""
    members, fit = [], MLPRegressor.fit
    monkeypatch.setattr(MLPRegressor, "fit", lambda self, *data: members.append((self, *data)) or fit(self, *data))
    return members


def test_200_samples_suffice_to_rank_archs_by_an_additive_accuracy(space, additive):
    rows = space.unique(space.sample(500, np.random.default_rng(1)))
    measured = additive(rows)
    predictor = AccuracyPredictor.fit(space, rows[:200], measured[:200], config=PredictorConfig(), seed=0)
    mean, low, high = predictor.predict(rows[200:])
    errors = np.abs(mean - measured[200:])
    assert kendalltau(mean, measured[200:]).statistic > 0.8
    assert np.sqrt(np.mean(errors**2)) < 0.5 * measured.std()
    assert np.corrcoef(high - low, errors)[0, 1] > 0  # wider intervals where it is wrong


def test_the_ensemble_predicts_the_mean_of_its_members_and_intervals_from_their_deviation(
    space, samples, fitted_members
):
    rows, measured = samples
    config = PredictorConfig(members=3, hidden=8)
    predictor = AccuracyPredictor.fit(space, rows, measured, config=config, seed=4)
    networks = [network for network, *_ in fitted_members]
    plain = np.stack([network.predict(space.one_hot(rows)) for network in networks]) * measured.std() + measured.mean()
    mean, low, high = predictor.predict(rows)
    assert mean == pytest.approx(plain.mean(axis=0), rel=1e-4)
    assert np.array_equal(predictor(rows), mean)
    half_width = NormalDist().inv_cdf(0.95) * plain.std(axis=0)  # 5 % on each side
    assert half_width.max() > 0.01
    assert high - mean == pytest.approx(half_width, rel=1e-2, abs=1e-3)
    assert mean - low == pytest.approx(half_width, rel=1e-2, abs=1e-3)


def test_members_differ_in_their_archs_and_initial_weights_and_follow_the_configuration(space, samples, fitted_members):
    rows, measured = samples
    config = PredictorConfig(members=3, hidden=7, alpha=0.125)
    AccuracyPredictor.fit(space, rows, measured, config=config, seed=4)
    positions = []
    for network, features, targets in fitted_members:
        assert (network.hidden_layer_sizes, network.alpha) == ((7, 7), 0.125)
        matches = (features[:, None] == space.one_hot(rows)).all(axis=2)
        positions.append(matches.argmax(axis=1))
        assert matches.any(axis=1).all()
        assert targets == pytest.approx((measured[positions[-1]] - measured.mean()) / measured.std())
        assert len(set(positions[-1].tolist())) == len(features) == 54  # 90 % of 60
    assert len({tuple(sorted(chosen.tolist())) for chosen in positions}) == 3
    assert [network.random_state for network, *_ in fitted_members] == [4, 5, 6]  # also another for each seed


def test_inactive_choices_do_not_change_a_prediction(space, predictor):
    rows = space.rows([space.smallest])
    inactive_moved = np.where(space.active(rows), rows, 1)
    assert (inactive_moved != rows).any()
    assert np.array_equal(predictor(inactive_moved), predictor(rows))


def test_the_seed_alone_determines_the_predictor(space, samples, predictor, quick):
    rows, _ = samples
    again, other = (AccuracyPredictor.fit(space, *samples, config=quick, seed=seed) for seed in (0, 1))
    assert np.array_equal(again(rows), predictor(rows))
    assert not np.array_equal(other(rows), predictor(rows))


def test_no_archs_have_no_predictions(space, predictor):
    assert [part.shape for part in predictor.predict(space.rows([]))] == [(0,)] * 3


def test_equal_accuracies_are_predicted_for_all_archs(space, samples, quick):
    rows, _ = samples
    predictor = AccuracyPredictor.fit(space, rows, np.full(len(rows), 70.0), config=quick, seed=0)
    assert predictor(rows) == pytest.approx(np.full(len(rows), 70.0), abs=0.5)


def test_rows_of_another_space_are_refused(space, samples, predictor, quick):
    rows, measured = samples
    for wrong in (rows[:, 1:], rows.astype(float), rows + 10):
        for call in (
            predictor,
            predictor.predict,
            lambda rows: AccuracyPredictor.fit(space, rows, measured, config=quick, seed=0),
        ):
            with pytest.raises(SpaceError, match=r"rows (are|have)"):
                call(wrong)


@pytest.mark.parametrize("broken", ["one arch", "nan", "inf", "fewer accuracies", "a column of accuracies"])
def test_a_fit_needs_two_archs_and_a_finite_accuracy_for_each(space, samples, quick, broken):
    rows, measured = samples[0], samples[1].copy()
    if broken == "one arch":
        rows, measured = rows[:1], measured[:1]
    elif broken == "fewer accuracies":
        measured = measured[1:]
    elif broken == "a column of accuracies":
        measured = measured[:, None]
    else:
        measured[3] = float(broken)
    with pytest.raises(PredictorError, match="a predictor needs 2 or more archs with a finite accuracy for each, not "):
        AccuracyPredictor.fit(space, rows, measured, config=quick, seed=0)


def test_two_archs_are_enough_for_a_fit(space, samples, quick):
    predictor = AccuracyPredictor.fit(space, samples[0][:2], np.array([60.0, 70.0]), config=quick, seed=0)
    assert predictor(samples[0][:2]) == pytest.approx([60, 70], abs=1)


def test_a_predictor_prints_on_one_short_line(space, predictor):
    n_values = sum(len(choice.values) for choice in space.choices)
    assert repr(predictor) == f"AccuracyPredictor(2 members, {n_values} features, mean {predictor.center:.4g} %)"


@pytest.mark.parametrize(
    ("key", "allowed"),
    [
        ("members", [1]),
        ("hidden", [1]),
        ("alpha", [0.0, 1.0]),
        ("test_percent", [1.0]),
    ],
)
def test_every_number_is_refused_or_works(space, samples, quick, key, allowed):
    for value in (0, 1, -1, 0.0, 1.0, -1.0, float("nan"), float("inf"), 10**30, 1e30):
        if type(value) is type(getattr(quick, key)) and value in allowed:
            config = PredictorConfig(**quick.model_dump() | {key: value})
            predictor = AccuracyPredictor.fit(space, *samples, config=config, seed=0)
            assert np.isfinite(predictor(samples[0])).all()
        elif not (isinstance(value, int) and value in allowed):  # integers are accepted where floats are
            with pytest.raises(ValidationError):
                PredictorConfig(**{key: value})


@pytest.mark.parametrize("largest", [{"members": 50, "hidden": 8}, {"alpha": 1e6}])
def test_the_largest_settings_work(space, samples, quick, largest):
    config = PredictorConfig(**quick.model_dump() | largest)
    assert np.isfinite(AccuracyPredictor.fit(space, *samples, config=config, seed=0)(samples[0])).all()


# Files


def test_a_predictor_that_was_saved_and_loaded_predicts_the_same(space, samples, predictor, tmp_path):
    predictor.save(tmp_path / "p.safetensors")
    loaded = AccuracyPredictor.load(tmp_path / "p.safetensors", space)
    for after, before in zip(loaded.predict(samples[0]), predictor.predict(samples[0]), strict=True):
        assert np.array_equal(after, before)
    assert [path.name for path in tmp_path.iterdir()] == ["p.safetensors"]


def test_a_predictor_of_another_space_is_refused(predictor, tmp_path):
    predictor.save(tmp_path / "p.safetensors")
    other = ofa.create_family("ofa_mobilenet_v3").space
    with pytest.raises(CheckpointError, match=r"p\.safetensors was fitted on another search space; fit it again"):
        AccuracyPredictor.load(tmp_path / "p.safetensors", other)


def test_a_predictor_of_another_space_with_as_many_values_is_refused(quick, tmp_path):
    first, second = (SearchSpace([Choice("resolution", (16, 32)), Choice(name, (1, 2))]) for name in ("a", "b"))
    rows = first.rows([first.smallest, first.largest] * 5)
    AccuracyPredictor.fit(first, rows, np.arange(10.0), config=quick, seed=0).save(tmp_path / "p.safetensors")
    with pytest.raises(CheckpointError, match="was fitted on another search space"):
        AccuracyPredictor.load(tmp_path / "p.safetensors", second)


def test_damaged_or_other_files_are_refused(space, predictor, tmp_path):
    path = tmp_path / "p.safetensors"
    predictor.save(path)
    whole, (tensors, metadata) = path.read_bytes(), read_tensors(path)
    for length in (0, 20, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"p\.safetensors is missing, truncated"):
            AccuracyPredictor.load(path, space)
    for name in tensors:
        write_tensors(path, {key: tensor for key, tensor in tensors.items() if key != name}, metadata)
        with pytest.raises(CheckpointError, match=r"p\.safetensors is not a predictor, it lacks"):
            AccuracyPredictor.load(path, space)
    write_tensors(path, {})
    with pytest.raises(CheckpointError, match="is not a predictor"):
        AccuracyPredictor.load(path, space)


@pytest.fixture
def measured(space, additive):
    rows = space.unique(space.sample(60, np.random.default_rng(2)))[:50]
    top1_percent = additive(rows)
    return rows, top1_percent, 5 - top1_percent / 20 + np.random.default_rng(3).normal(0, 0.01, 50)


def test_metrics_compare_held_out_measurements_with_a_predictor_fitted_to_the_other_archs(
    space, measured, quick, monkeypatch
):
    rows, top1_percent, loss = measured
    fits, fit = [], AccuracyPredictor.fit.__func__

    def spy(cls, space_, fit_rows, targets, **settings):
        fits.append((fit_rows, targets, settings))
        return fit(cls, space_, fit_rows, targets, **settings)

    monkeypatch.setattr(AccuracyPredictor, "fit", classmethod(spy))
    metrics = evaluate(space, rows, top1_percent, loss=loss, n_images=500, config=quick, seed=3)
    ((fit_rows, targets, settings),) = fits
    assert settings == {"config": quick, "seed": 3}
    assert (metrics.n_fit, metrics.n_test) == (40, 10)
    positions = [int(np.flatnonzero((rows == row).all(axis=1))[0]) for row in fit_rows]
    held_out = sorted(set(range(50)) - set(positions))
    assert len(held_out) == 10
    assert np.array_equal(targets, denoised_percent(top1_percent[positions], loss[positions], 500))
    assert sorted(metrics.measured_percent) == sorted(top1_percent[held_out])
    predicted, truth = np.array(metrics.predicted_percent), np.array(metrics.measured_percent)
    again = fit(AccuracyPredictor, space, fit_rows, targets, config=quick, seed=3)(rows[held_out])
    by_measurement = dict(zip(top1_percent[held_out].tolist(), again.tolist(), strict=True))
    assert predicted.tolist() == pytest.approx([by_measurement[value] for value in metrics.measured_percent])
    signs = [np.sign((predicted[i] - predicted[j]) * (truth[i] - truth[j])) for i in range(10) for j in range(i)]
    assert metrics.kendall_tau == pytest.approx(np.mean(signs))
    assert metrics.rmse_percent == pytest.approx(np.sqrt(np.mean((predicted - truth) ** 2)))


def test_the_seed_determines_which_archs_are_held_out(space, measured, quick):
    rows, top1_percent, loss = measured
    first, same, other = (
        evaluate(space, rows, top1_percent, loss=loss, n_images=500, config=quick, seed=seed) for seed in (3, 3, 4)
    )
    assert first == same
    assert set(first.measured_percent) != set(other.measured_percent)


@pytest.mark.parametrize(("test_percent", "n_test"), [(1e-9, 1), (1.0, 1), (50.0, 5)])
def test_the_share_of_held_out_archs_is_configurable(space, measured, test_percent, n_test):
    rows, top1_percent, loss = (part[:10] for part in measured)
    config = PredictorConfig(members=1, hidden=4, test_percent=test_percent)
    metrics = evaluate(space, rows, top1_percent, loss=loss, n_images=500, config=config, seed=0)
    assert (metrics.n_fit, metrics.n_test) == (10 - n_test, n_test)
    if n_test == 1:
        assert metrics.kendall_tau == 0  # a single arch has no rank


def test_equal_accuracies_have_no_rank_correlation(space, measured, quick):
    rows, _, loss = measured
    metrics = evaluate(space, rows, np.full(50, 70.0), loss=loss, n_images=500, config=quick, seed=0)
    assert metrics.kendall_tau == 0
