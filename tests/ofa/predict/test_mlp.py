import numpy as np
import pytest
from scipy.stats import kendalltau
from sklearn.neural_network import MLPRegressor

import ofa
from ofa.core.errors import CheckpointError
from ofa.core.tensors import read_tensors, write_tensors
from ofa.predict.denoise import denoised_percent, estimate_percent, model_rmse_percent
from ofa.predict.metrics import fit_and_evaluate
from ofa.predict.mlp import AccuracyPredictor, PredictorConfig
from ofa.space.choice import Choice
from ofa.space.search_space import SearchSpace

QUICK = PredictorConfig(members=2, hidden=8)


@pytest.fixture(scope="module")
def space():
    return ofa.create_family("small_mobilenet_v3").space


def additive(space, rows):
    """An accuracy in percent to which every active choice adds its own part."""
    parts = np.random.default_rng(5).uniform(0, 1, size=sum(len(choice.values) for choice in space.choices))
    plain = [sum(parts[i] for i in np.flatnonzero(features)) for features in space.one_hot(rows)]
    return 60 + np.array(plain)


@pytest.fixture(scope="module")
def samples(space):
    rows = space.sample(60, np.random.default_rng(0))
    return rows, additive(space, rows)


@pytest.fixture(scope="module")
def predictor(space, samples):
    return AccuracyPredictor.fit(space, *samples, QUICK, seed=0)


def test_the_ranking_of_an_additive_accuracy_is_found_from_200_samples(space):
    rows = space.unique(space.sample(500, np.random.default_rng(1)))
    accuracy = additive(space, rows)
    predictor = AccuracyPredictor.fit(space, rows[:200], accuracy[:200], PredictorConfig(), seed=0)
    predicted, deviation = predictor(rows[200:])
    assert kendalltau(predicted, accuracy[200:]).statistic > 0.8
    assert np.sqrt(np.mean((predicted - accuracy[200:]) ** 2)) < 0.5 * accuracy.std()
    assert np.corrcoef(deviation, np.abs(predicted - accuracy[200:]))[0, 1] > 0  # less sure where it is wrong


def test_the_ensemble_computes_what_its_members_do(space, samples, monkeypatch):
    members = []
    fit = MLPRegressor.fit
    monkeypatch.setattr(MLPRegressor, "fit", lambda self, *args: members.append(self) or fit(self, *args))
    predictor = AccuracyPredictor.fit(space, *samples, PredictorConfig(members=3, hidden=8), seed=4)
    rows, accuracy = samples
    plain = np.stack([member.predict(space.one_hot(rows)) for member in members]) * accuracy.std() + accuracy.mean()
    mean, deviation = predictor(rows)
    assert len(members) == 3
    assert mean == pytest.approx(plain.mean(axis=0), rel=1e-4)
    assert deviation == pytest.approx(plain.std(axis=0), rel=1e-2, abs=1e-3)
    assert deviation.max() > 0.01


def test_inactive_choices_do_not_count(space, predictor):
    rows = space.rows([space.smallest])
    inactive = np.where(space.active(rows), rows, 1)
    assert (inactive != rows).any()
    assert np.array_equal(predictor(inactive)[0], predictor(rows)[0])


def test_the_same_seed_gives_the_same_predictor(space, samples, predictor):
    rows, _ = samples
    again = AccuracyPredictor.fit(space, *samples, QUICK, seed=0)
    other = AccuracyPredictor.fit(space, *samples, QUICK, seed=1)
    assert np.array_equal(again(rows)[0], predictor(rows)[0])
    assert not np.array_equal(other(rows)[0], predictor(rows)[0])


def test_a_saved_predictor_predicts_the_same(space, samples, predictor, tmp_path):
    predictor.save(tmp_path / "p.safetensors")
    loaded = AccuracyPredictor.load(tmp_path / "p.safetensors", space)
    for mine, theirs in zip(loaded(samples[0]), predictor(samples[0]), strict=True):
        assert np.array_equal(mine, theirs)
    assert [path.name for path in tmp_path.iterdir()] == ["p.safetensors"]


def test_no_archs_no_predictions(space, predictor):
    assert [part.shape for part in predictor(space.rows([]))] == [(0,), (0,)]


def test_equal_accuracies_are_predicted_as_such(space, samples):
    rows, _ = samples
    predictor = AccuracyPredictor.fit(space, rows, np.full(len(rows), 70.0), QUICK, seed=0)
    assert predictor(rows)[0] == pytest.approx(np.full(len(rows), 70.0), abs=0.5)


def test_a_predictor_of_another_space(predictor, tmp_path):
    predictor.save(tmp_path / "p.safetensors")
    other = ofa.create_family("ofa_mobilenet_v3").space
    with pytest.raises(CheckpointError, match=r"p\.safetensors was fitted on another search space; fit it again"):
        AccuracyPredictor.load(tmp_path / "p.safetensors", other)


def test_a_predictor_of_another_space_with_as_many_values(tmp_path):
    first, second = (SearchSpace([Choice("resolution", (16, 32)), Choice(name, (1, 2))]) for name in ("a", "b"))
    rows = first.rows([first.smallest, first.largest] * 5)
    AccuracyPredictor.fit(first, rows, np.arange(10.0), QUICK, seed=0).save(tmp_path / "p.safetensors")
    with pytest.raises(CheckpointError, match="was fitted on another search space"):
        AccuracyPredictor.load(tmp_path / "p.safetensors", second)


def test_damaged_or_other_files(space, predictor, tmp_path):
    path = tmp_path / "p.safetensors"
    predictor.save(path)
    whole, (tensors, metadata) = path.read_bytes(), read_tensors(path)
    for length in (0, 20, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"p\.safetensors is missing, truncated"):
            AccuracyPredictor.load(path, space)
    for name in ("center", "layers.1.biases", "layers.0.weights"):
        write_tensors(path, {key: tensor for key, tensor in tensors.items() if key != name}, metadata)
        with pytest.raises(CheckpointError, match=r"p\.safetensors (is not a predictor|was fitted on another)"):
            AccuracyPredictor.load(path, space)
    write_tensors(path, {})
    with pytest.raises(CheckpointError, match="is not a predictor"):
        AccuracyPredictor.load(path, space)


def test_judging_uses_archs_kept_apart(space, monkeypatch):
    rows = space.unique(space.sample(60, np.random.default_rng(2)))[:50]
    accuracy = additive(space, rows)
    loss, n_images = 5 - accuracy / 20 + np.random.default_rng(3).normal(0, 0.01, 50), 500
    fitted = []
    fit = AccuracyPredictor.fit.__func__

    def spy(cls, space_, some, values, config, seed):
        fitted.append((some, values))
        return fit(cls, space_, some, values, config, seed)

    monkeypatch.setattr(AccuracyPredictor, "fit", classmethod(spy))
    predictor, judged = fit_and_evaluate(space, rows, accuracy, loss, n_images, QUICK, seed=3)
    assert (judged.n_fit, judged.n_test) == (40, 10)
    (first, targets), (last, _) = fitted
    assert np.array_equal(last, rows)
    apart = [i for i, row in enumerate(rows) if not (first == row).all(axis=1).any()]
    positions = [int(np.flatnonzero((rows == row).all(axis=1))[0]) for row in first]
    assert np.array_equal(targets, denoised_percent(accuracy[positions], loss[positions], n_images))
    assert sorted(judged.measured_percent) == sorted(accuracy[apart])
    assert len(apart) == 10
    predicted, measured = np.array(judged.predicted_percent), np.array(judged.measured_percent)
    signs = [np.sign((predicted[i] - predicted[j]) * (measured[i] - measured[j])) for i in range(10) for j in range(i)]
    assert judged.kendall_tau == pytest.approx(np.mean(signs))
    assert judged.rmse_percent == pytest.approx(np.sqrt(np.mean((predicted - measured) ** 2)))
    whole = fit(AccuracyPredictor, space, rows, denoised_percent(accuracy, loss, n_images), QUICK, 3)
    assert np.array_equal(predictor(rows)[0], whole(rows)[0])


@pytest.mark.parametrize("seed", range(3))
def test_losses_take_noise_out_of_accuracies_that_follow_them(seed):
    """Networks that differ in how far the right answer is ahead of others, each seen on the same few images."""
    rng = np.random.default_rng(seed)
    lead = rng.uniform(1.5, 2.5, (200, 1))
    # how hard the images are, then what networks make of them
    ahead = lead + rng.logistic(0, 1, (1, 20_000)) + rng.logistic(0, 0.3, (200, 20_000))
    right, loss = 100.0 * (ahead > 0), np.log1p(np.exp(-ahead))
    n_images = 500
    measured, true = right[:, :n_images].mean(axis=1), right[:, n_images:].mean(axis=1)
    denoised = denoised_percent(measured, loss[:, :n_images].mean(axis=1), n_images)
    gain = kendalltau(denoised, true).statistic - kendalltau(measured, true).statistic
    assert gain > 0.03
    assert denoised.mean() == pytest.approx(measured.mean(), abs=0.1)


def test_losses_that_say_nothing_leave_accuracies_as_they_are():
    rng = np.random.default_rng(0)
    measured, n_images = rng.uniform(60, 90, 100), 10_000  # differences far above the noise of so many images
    for loss in (rng.uniform(0, 1, 100), np.full(100, 0.5)):
        assert np.abs(denoised_percent(measured, loss, n_images) - measured).max() < 0.2


def test_an_estimate_weighs_measurement_and_prediction_by_their_variances():
    """Against a simulation: on archs whose true accuracy scatters around the prediction, it errs less than either."""
    rng = np.random.default_rng(0)
    n_images, off = 400, 1.0
    predicted = rng.uniform(85, 95, 4000)
    true = predicted + rng.normal(0, off, 4000)
    measured = 100 * rng.binomial(n_images, true / 100) / n_images
    found = model_rmse_percent(measured, predicted, n_images)
    assert abs(found - off) < 0.1
    estimate = estimate_percent(measured, predicted, n_images, found)

    def error(guess):
        return float(np.sqrt(np.mean((guess - true) ** 2)))

    best_fixed_weight = min(error(predicted + w * (measured - predicted)) for w in np.linspace(0, 1, 101))
    assert error(estimate) <= best_fixed_weight < 0.95 * min(error(measured), error(predicted))


def test_an_estimate_follows_many_images_and_leaves_few():
    few, many = (float(estimate_percent(np.array([100.0]), np.array([90.0]), n, 2.0)[0]) for n in (10, 10**6))
    assert 90 < few < 91.5
    assert many > 99.9
