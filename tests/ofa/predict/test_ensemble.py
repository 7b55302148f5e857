import numpy as np
import pytest
from sklearn.ensemble import GradientBoostingRegressor
from sklearn.linear_model import RidgeCV
from sklearn.neural_network import MLPRegressor

from ofa.space.choice import Choice
from ofa.space.search_space import SearchSpace


@pytest.fixture
def fitted_models(monkeypatch):
    """Collects the models that are fitted, each with its features and targets."""
    models = []
    for kind in (GradientBoostingRegressor, MLPRegressor, RidgeCV):

        def fit(self, *data, fit=kind.fit, **weights):
            models.append((self, *data))
            return fit(self, *data, **weights)

        monkeypatch.setattr(kind, "fit", fit)
    return models


@pytest.mark.parametrize("name", ["mlp", "trees", "ridge"])
def test_an_ensemble_predicts_the_mean_of_its_members(create, name, samples, fitted_models):
    rows, measured = samples
    predictor = create(name, members=3, warp="none").fit(rows, measured)
    assert len(fitted_models) == 3
    by_members = []
    for member, (model, _, _) in enumerate(fitted_models):
        state = {k.partition(".")[2]: x for k, x in predictor.state.items() if k.startswith(f"{member}.")}
        features = predictor.encoding.space.one_hot(rows) if name == "mlp" else predictor._features(rows)
        if name == "ridge":  # it was fitted to standardized features
            by_members.append(predictor._predict_member(state, rows))
            continue
        by_members.append(model.predict(features))
    assert predictor._predict(rows).mean == pytest.approx(np.mean(by_members, axis=0), rel=1e-4, abs=1e-5)


@pytest.mark.parametrize("name", ["mlp", "trees", "ridge"])
def test_each_arch_is_left_out_by_one_member_which_predicts_it(create, name, samples, fitted_models):
    rows, measured = samples
    predictor = create(name, members=4, warp="none").fit(rows, measured)
    scores = predictor.warp(measured)
    assert [len(targets) for _, _, targets in fitted_models] == [45] * 4
    seen = np.array([[score in targets for score in scores] for _, _, targets in fitted_models])
    assert (seen.sum(axis=0) == 3).all()
    for i in (0, 30, 59):
        member = int(np.flatnonzero(~seen[:, i])[0])
        state = {k.partition(".")[2]: x for k, x in predictor.state.items() if k.startswith(f"{member}.")}
        assert predictor.left_out.mean[i] == pytest.approx(predictor._predict_member(state, rows[i : i + 1])[0])


def test_ridge_learns_pairs_when_asked(create):
    space = SearchSpace([Choice(name, (0, 1)) for name in "abcdefg"])
    rows = space.unique(space.sample(600, np.random.default_rng(0)))
    together = 70 + 2.0 * (rows[:, 0] ^ rows[:, 1])  # neither choice tells anything alone
    errors = []
    for max_pairs in (0, 5000):
        predicted = create("ridge", space, max_pairs=max_pairs).fit(rows[:80], together[:80])(rows[80:])
        errors.append(np.abs(predicted - together[80:]).mean())
    assert errors[1] < 0.2 * errors[0]
