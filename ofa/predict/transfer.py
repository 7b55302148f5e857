"""A predictor that starts from those of earlier runs: it learns by how much the new accuracies differ from theirs."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.optimize import nnls

from ofa.core.prediction import Prediction
from ofa.predict.predictor import Predictor, Scores, State, calibration_factor, create, under
from ofa.predict.warp import Floats, Warp
from ofa.space.arch import Rows


class Transfer(Predictor):
    """Predictors of earlier runs, weighted, and a model of what they miss.

    Accuracies of two data sets may differ in their scale, so ranks are what is taken over: both the earlier predictions
    and the new accuracies are brought to normal scores. An earlier predictor that tells nothing gets no share.

    Args:
        member: the predictor that learns the rest.
        earlier: fitted predictors of the same search space.
    """

    name = "transfer"

    def __init__(self, member: Predictor, earlier: Sequence[Predictor]) -> None:
        super().__init__(member.encoding, member.settings, seed=member.seed)
        settings = member.settings.model_dump() | {"warp": "none"}
        self.rest = create(member.name, member.encoding, seed=member.seed, **settings)
        self.earlier = earlier

    @property
    def shares(self) -> Floats:
        """The share `[n_earlier]` of each earlier predictor."""
        return np.asarray(self.state["shares"])

    def _learn(self, rows: Rows, top1_percent: Floats, noise_percent: Floats) -> None:
        self.warp = Warp.ranks(top1_percent)
        scores, earlier = self.warp(top1_percent), self._earlier_scores(rows)
        shares, _ = nnls(earlier - earlier.mean(axis=0), scores - scores.mean())
        self.state = {"shares": shares}
        self.rest.fit(rows, scores - earlier @ shares, noise_percent * self.warp.slope(top1_percent))
        self.left_out = self._with_rest(earlier, self.rest.cross_validated())
        self.calibration = calibration_factor(scores, self.left_out)

    def again(self) -> Predictor:
        """Return one that starts from the same predictors."""
        return Transfer(self.rest.again(), self.earlier)

    def description(self) -> dict[str, Any]:
        """Return how the model of the rest and the earlier predictors were created."""
        return self.rest.description() | {"start_from": [one.description() for one in self.earlier]}

    def arrays(self) -> State:
        """Return everything that was fitted, by name; the earlier predictors among it."""
        parts = {"rest": self.rest} | {f"earlier.{i}": one for i, one in enumerate(self.earlier)}
        of_parts = {f"{part}.{name}": array for part, one in parts.items() for name, array in one.arrays().items()}
        return super().arrays() | of_parts

    def restore(self, arrays: State) -> None:
        """Take over what another one returned from `arrays`."""
        super().restore(arrays)
        self.rest.restore(under("rest.", arrays))
        for i, one in enumerate(self.earlier):
            one.restore(under(f"earlier.{i}.", arrays))

    def _predict(self, rows: Rows) -> Scores:
        return self._with_rest(self._earlier_scores(rows), self.rest.predict(rows))

    def _earlier_scores(self, rows: Rows) -> Floats:
        """Return what the earlier predictors say `[n, n_earlier]`, each on the scale on which it learned."""
        return np.stack([one.warp(one.predict(rows).mean) for one in self.earlier], axis=1)

    def _with_rest(self, earlier: Floats, rest: Prediction) -> Scores:
        return Scores(earlier @ self.shares + rest.mean, np.maximum(rest.std, 1e-9))
