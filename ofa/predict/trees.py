"""Gradient-boosted regression trees (Friedman, 2001)."""

import numpy as np
from pydantic import Field
from sklearn.ensemble import GradientBoostingRegressor

from ofa.predict.ensemble import Ensemble, EnsembleSettings
from ofa.predict.predictor import Measured, State
from ofa.predict.warp import Floats
from ofa.space.arch import Rows

_BLOCK = 1024


class TreesSettings(EnsembleSettings):
    """Settings of the predictor `trees`."""

    trees: int = Field(300, ge=1, le=5000)
    """Trees of each member."""
    depth: int = Field(4, ge=1, le=12)
    """Largest number of questions from the root of a tree to a leaf."""
    learning_rate: float = Field(0.05, gt=0, le=1)
    """Share of each tree's answer that is added."""


class Trees(Ensemble):
    """Boosted trees on the positions of values and on what sums archs up; they need no scale and find interactions."""

    name = "trees"
    Settings = TreesSettings
    settings: TreesSettings

    def _fit_member(self, measured: Measured, seed: int) -> State:
        config = self.settings
        model = GradientBoostingRegressor(
            n_estimators=config.trees,
            max_depth=config.depth,
            learning_rate=config.learning_rate,
            subsample=0.7 if len(measured.rows) >= 10 else 1.0,
            max_features=0.5,
            random_state=seed,
        ).fit(self._features(measured.rows), measured.scores, sample_weight=measured.weights())
        trees = [tree.tree_ for tree in model.estimators_[:, 0]]
        nodes = max(tree.node_count for tree in trees)

        def stacked(name: str, fill: float) -> Floats:
            columns = [getattr(tree, name).reshape(-1) for tree in trees]
            return np.stack([np.pad(column, (0, nodes - len(column)), constant_values=fill) for column in columns])

        return {
            "left": stacked("children_left", -1),
            "right": stacked("children_right", -1),
            "feature": stacked("feature", -2),
            "threshold": stacked("threshold", 0.0),
            "value": config.learning_rate * stacked("value", 0.0),
            "start": np.asarray(model.init_.constant_, dtype=np.float64).reshape(1),
        }

    def _predict_member(self, state: State, rows: Rows) -> Floats:
        features = self._features(rows).astype(np.float32)
        predicted = np.full(len(rows), float(state["start"][0]))
        trees = np.arange(len(state["left"]))
        for start in range(0, len(rows), _BLOCK):
            block = features[start : start + _BLOCK]
            archs, node = np.arange(len(block))[:, None], np.zeros((len(block), len(trees)), dtype=np.int64)
            for _ in range(self.settings.depth):
                left, right = state["left"][trees, node], state["right"][trees, node]
                goes_left = block[archs, state["feature"][trees, node]] <= state["threshold"][trees, node]
                node = np.where(left < 0, node, np.where(goes_left, left, right))
            predicted[start : start + _BLOCK] += state["value"][trees, node].sum(axis=1)
        return predicted

    def _features(self, rows: Rows) -> Floats:
        return np.concatenate([self.encoding.states(rows), self.encoding.numbers(rows)], axis=1)
