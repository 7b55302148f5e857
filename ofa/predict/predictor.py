"""What all accuracy predictors have in common: fitting, intervals, files. Each one is a file beside this one."""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from ofa.core.config import Config
from ofa.core.errors import CheckpointError, PredictorError, one_line
from ofa.core.files import parse_json
from ofa.core.plugins import load_configured
from ofa.core.prediction import HALF_WIDTH_STDS, INTERVAL, Prediction
from ofa.core.tensors import read_tensors, write_tensors
from ofa.predict.encoding import Encoding, Feature
from ofa.predict.metrics import rank_correlation
from ofa.predict.warp import Floats, Warp
from ofa.space.arch import Rows
from ofa.space.search_space import SearchSpace

GROUP = "ofa.predictors"
"""Entry-point group of predictor classes."""
State = dict[str, NDArray[Any]]
_LEAST_GAIN = 0.005
"""Kendall's tau by which ranks must beat the accuracies themselves, which tell more where both rank alike."""
_LEAST_CALIBRATED = 10
"""Archs below which intervals are never narrowed."""


class Measured(NamedTuple):
    """Archs `[n, n_choices]` with their measured scores `[n]`, and the standard deviations `[n]` of their errors.

    The deviations are 0 where they are not known; a model finds out by itself how much noise there is beside them.
    """

    rows: Rows
    scores: Floats
    noise: Floats

    def part(self, chosen: NDArray[Any]) -> "Measured":
        """Return some of the archs, by a mask or by positions."""
        return Measured(self.rows[chosen], self.scores[chosen], self.noise[chosen])

    def weights(self) -> Floats:
        """Return how much each arch tells `[n]`, 1 without noise, to a model that explains 90 % of true differences."""
        variance = float(self.scores.var())
        unexplained = 0.1 * max(variance - float(np.mean(self.noise**2)), 0.01 * variance, 1e-12)
        return unexplained / (unexplained + self.noise**2)


class Scores(NamedTuple):
    """Predicted scores of `n` archs on the scale of a `Warp`.

    Attributes:
        mean: expected scores `[n]`.
        std: standard deviations of the true scores around them `[n]`, above 0.
    """

    mean: Floats
    std: Floats


class PredictorSettings(Config):
    """Settings that every predictor has."""

    warp: Literal["auto", "none", "ranks"] = "auto"
    """What is learned: accuracies as they are, normal scores of their ranks, or the one of both that ranks better archs
    that were left out."""


class Predictor(ABC):
    """A model of the accuracies of archs.

    Args:
        encoding: the archs in the forms that predictors read.
        settings: of the class `Settings`.
        seed: of everything that is drawn.
    """

    name: ClassVar[str]
    Settings: ClassVar[type[PredictorSettings]] = PredictorSettings

    def __init__(self, encoding: Encoding, settings: Any, *, seed: int = 0) -> None:
        self.encoding, self.settings, self.seed = encoding, settings, seed
        self.warp = Warp.linear(np.array([0.0, 1.0]))
        self.calibration = 1.0
        self.left_out = Scores(np.zeros(0), np.zeros(0))  # of each different arch
        self._positions = np.arange(0)  # of the archs of `fit` among the different ones
        self.state: State = {}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.settings!r}, seed={self.seed}, {'fitted' if self.state else 'not fitted'})"

    @abstractmethod
    def _predict(self, rows: Rows) -> Scores:
        """Predict scores by `self.state`."""

    def __call__(self, rows: Rows) -> Floats:
        """Predict the accuracies `[n]` of rows `[n, n_choices]` in percent, as `predict` does, without intervals."""
        return self.warp.inverse(self._scores(rows).mean)

    @abstractmethod
    def _learn(self, rows: Rows, top1_percent: Floats, noise_percent: Floats) -> None:
        """Fit to the accuracies of different archs, and set `warp`, `calibration`, `left_out` and `state`."""

    def fit(self, rows: Rows, top1_percent: Floats, noise_percent: Floats | None = None) -> Self:
        """Fit to the accuracies in percent `[n]` of rows `[n, n_choices]`, and calibrate the intervals.

        `noise_percent` holds the standard deviations `[n]` of the errors of these accuracies, where they are known. An
        arch that was measured several times counts once, by its mean: no model that is to be judged by an arch must
        have seen it.

        Raises:
            PredictorError: there are fewer than 2 different archs, or not one finite accuracy for each.
            SpaceError: the rows do not belong to the search space.
        """
        self._learn(*self._once_each(*self._checked(rows, top1_percent, noise_percent)))
        return self

    def predict(self, rows: Rows) -> Prediction:
        """Predict the accuracies of rows `[n, n_choices]` in percent.

        Raises:
            PredictorError: the predictor was not fitted.
            SpaceError: the rows do not belong to the search space.
        """
        return self._in_percent(self._scores(rows))

    def draw(self, rows: Rows, n: int, rng: np.random.Generator) -> Floats:
        """Draw `n` samples of the accuracies in percent `[n, n_archs]` of rows `[n_archs, n_choices]`.

        `gp` draws archs together, by their covariances; other models, which do not know these, each arch by itself.

        Raises:
            PredictorError: the predictor was not fitted.
            SpaceError: the rows do not belong to the search space.
        """
        mean, std = self._scores(rows)
        errors = self._errors(self.encoding.space.canonical(rows), std, rng.standard_normal((n, len(rows))))
        return self.warp.inverse(mean + self.calibration * errors)

    def _errors(self, rows: Rows, std: Floats, standard: Floats) -> Floats:
        """Make errors of scores out of standard normal numbers `[n, n_archs]`, by deviations `std` `[n_archs]`."""
        del rows  # a model that knows how similar they are needs them
        return std * standard

    def again(self) -> "Predictor":
        """Return such a predictor that is not fitted, without what this fit showed to be of no use."""
        return create(self.name, self.encoding, seed=self.seed, **self.settings.model_dump())

    def cross_validated(self) -> Prediction:
        """Return the accuracies in percent `[n]` of the archs of `fit`, each predicted by models that had not seen it.

        Raises:
            PredictorError: the predictor was not fitted, or comes from a file, which does not hold them.
        """
        if not len(self.left_out.mean):
            raise PredictorError(f"predictor {self.name!r} has left out no archs; call fit(rows, top1_percent) first")
        return self._in_percent(Scores(*(scores[self._positions] for scores in self.left_out)))

    def _scores(self, rows: Rows) -> Scores:
        if not self.state:
            raise PredictorError(f"predictor {self.name!r} was not fitted; call fit(rows, top1_percent) first")
        return self._predict(self.encoding.space.canonical(rows))

    def _in_percent(self, scores: Scores) -> Prediction:
        half_width = HALF_WIDTH_STDS * self.calibration * scores.std
        inverse = self.warp.inverse
        return Prediction(inverse(scores.mean), inverse(scores.mean - half_width), inverse(scores.mean + half_width))

    def arrays(self) -> State:
        """Return everything that was fitted, by name."""
        arrays = {f"state.{name}": array for name, array in self.state.items()}
        warp = {"warp.accuracy": self.warp.accuracy, "warp.score": self.warp.score}
        return arrays | warp | {"calibration": np.array([self.calibration])}

    def restore(self, arrays: State) -> None:
        """Take over what another predictor with the same encoding and settings returned from `arrays`."""
        self.warp = Warp(arrays["warp.accuracy"], arrays["warp.score"])
        self.calibration = float(arrays["calibration"][0])
        self.state = under("state.", arrays)

    def description(self) -> dict[str, Any]:
        """Return how the predictor was created: JSON values from which `create` makes it again, unfitted."""
        settings = self.settings.model_dump(mode="json")
        return {"name": self.name, "settings": settings, "seed": self.seed, "features": [*self.encoding.features]}

    def save(self, path: Path) -> None:
        """Write the predictor as a safetensors file, whole or not at all."""
        tensors = {name: torch.from_numpy(np.array(array)) for name, array in self.arrays().items()}
        write_tensors(path, tensors, {"predictor": json.dumps(self.description())} | _reads(self.encoding))

    def _checked(self, rows: Rows, top1_percent: Floats, noise_percent: Floats | None) -> tuple[Rows, Floats, Floats]:
        top1_percent = np.asarray(top1_percent, dtype=np.float64)
        noise = np.zeros(len(rows)) if noise_percent is None else np.asarray(noise_percent, dtype=np.float64)
        if len(rows) < 2 or top1_percent.shape != (len(rows),) or not np.isfinite(top1_percent).all():
            raise PredictorError(
                f"a predictor needs 2 or more archs with a finite accuracy for each, not {len(rows)} archs with "
                f"{np.isfinite(top1_percent).sum()} finite accuracies; measure them again"
            )
        if noise.shape != (len(rows),) or not (np.isfinite(noise) & (noise >= 0)).all():
            raise PredictorError("the noise of accuracies is one finite standard deviation for each arch, 0 or more")
        return self.encoding.space.canonical(rows), top1_percent, noise

    def _once_each(self, rows: Rows, top1_percent: Floats, noise: Floats) -> tuple[Rows, Floats, Floats]:
        """Return each different arch once, with the mean of its accuracies and the standard deviation of its error."""
        space = self.encoding.space
        first = space.first_appearances(rows)
        place = {key.tobytes(): i for i, key in enumerate(space.keys(rows[first]))}
        self._positions = np.array([place[key.tobytes()] for key in space.keys(rows)])
        if len(first) == len(rows):
            return rows, top1_percent, noise
        if len(first) < 2:
            raise PredictorError(f"a predictor needs 2 or more different archs, not one {len(rows)} times")
        times = np.bincount(self._positions)
        mean, variance = (np.bincount(self._positions, weights) for weights in (top1_percent, noise**2))
        return rows[first], mean / times, np.sqrt(variance) / times


class Model(Predictor):
    """A predictor that is one model, fitted on the scale on which it ranks archs better that were left out."""

    @abstractmethod
    def _fit(self, measured: Measured) -> tuple[State, Scores]:
        """Fit the model; returns its state, and predictions of each score that do not know it."""

    def _leave_out(self, measured: Measured) -> Scores | None:
        """Return predictions of each score by a model that had not seen it in any way, if those of `_fit` are not."""

    def _learn(self, rows: Rows, top1_percent: Floats, noise_percent: Floats) -> None:
        best, self.state = -np.inf, {}
        scales = {"none": [Warp.linear], "ranks": [Warp.ranks], "auto": [Warp.linear, Warp.ranks]}
        with threadpool_limits(1):  # several threads are slower for matrices of this size
            for scale in scales[self.settings.warp]:
                warp = scale(top1_percent)
                on_scale = Measured(rows, warp(top1_percent), noise_percent * warp.slope(top1_percent))
                state, left_out = self._fit(on_scale)
                tau = rank_correlation(left_out.mean, top1_percent)
                if tau > best + _LEAST_GAIN or not self.state:
                    best, self.warp, self.state, self.left_out, measured = tau, warp, state, left_out, on_scale
            self.left_out = self._leave_out(measured) or self.left_out
        self.calibration = calibration_factor(measured.scores, self.left_out)


def create(
    name: str,
    subject: Any,
    *,
    features: Mapping[str, Feature] | None = None,
    start_from: Sequence["Predictor"] = (),
    seed: int = 0,
    **settings: Any,
) -> Predictor:
    """Create a predictor for the archs of a space or of a family, whose graphs it can read, too.

    Args:
        name: of the entry-point group `ofa.predictors`: `auto`, `gp`, `ridge`, `mlp`, `trees`, `gcn`,
            `transformer`, `summary`.
        subject: a `SearchSpace`, a `Family`, or an `Encoding`.
        features: costs by name that are known without a measurement, such as `{"macs_m": ofa.macs_m(family)}`.
        start_from: fitted predictors of the same space: those of earlier runs on other data, or `summary` ones that
            were moved to it. The new one learns by how much accuracies differ from theirs, which takes fewer archs.
        seed: of everything that is drawn.
        settings: of the predictor.

    Raises:
        PredictorError: there is no such predictor or setting, a value is not allowed, or a predictor to start from was
            not fitted or is of another space.
    """
    kind, checked = check_settings(name, settings)
    predictor: Predictor = kind(as_encoding(subject, features), checked, seed=seed)
    if not start_from:
        return predictor
    from ofa.predict.transfer import Transfer  # it creates predictors

    for one in start_from:
        if not one.state or one.encoding.space.choices != predictor.encoding.space.choices:
            raise PredictorError(f"{one!r} was not fitted, or to another space; start from fitted ones of this space")
    return Transfer(predictor, start_from)


def check_settings(name: str, settings: Mapping[str, Any]) -> tuple[type[Predictor], PredictorSettings]:
    """Return the class of a predictor and its checked settings; PredictorError if one of them is wrong."""
    return load_configured(GROUP, name, settings, "predictor", PredictorError)


def load(path: Path, subject: Any, *, features: Mapping[str, Feature] | None = None) -> Predictor:
    """Read a predictor that `save` wrote, for the same space and features.

    Raises:
        CheckpointError: the file is missing or truncated, or the predictor was fitted on another search space.
    """
    tensors, metadata = read_tensors(path)
    encoding = as_encoding(subject, features)
    if "predictor" not in metadata:
        raise CheckpointError(f"{path} is not a predictor; fit it again")
    if any(metadata.get(key) != value for key, value in _reads(encoding).items()):
        raise CheckpointError(f"{path} was fitted on another search space; fit it again")
    try:
        description = parse_json(metadata["predictor"])
        if missing := sorted(_features_of(description) - encoding.features.keys()):
            raise CheckpointError(f"{path} reads {', '.join(missing)}; give these features, or fit it again")
        predictor = _described(description, encoding)
        predictor.restore({name: tensor.numpy() for name, tensor in tensors.items()})
        predictor._predict(encoding.space.rows([encoding.space.smallest]))
    except (KeyError, ValueError, TypeError, IndexError, RuntimeError, PredictorError) as error:
        raise CheckpointError(f"{path} is not a predictor ({one_line(error)}); fit it again") from error
    return predictor


def _features_of(description: Mapping[str, Any]) -> set[str]:
    """Return the names of the features that a predictor and those that it starts from read."""
    earlier = (_features_of(one) for one in description.get("start_from", ()))
    return set(description["features"]).union(*earlier)


def _described(description: Mapping[str, Any], encoding: Encoding) -> Predictor:
    """Create the predictor of a description, unfitted."""
    features = {name: encoding.features[name] for name in description["features"]}
    predictor = create(
        str(description["name"]),
        replace(encoding, features=features),
        seed=int(description["seed"]),
        **description["settings"],
    )
    if "start_from" not in description:
        return predictor
    from ofa.predict.transfer import Transfer  # it creates predictors

    return Transfer(predictor, [_described(one, encoding) for one in description["start_from"]])


def as_encoding(subject: Any, features: Mapping[str, Feature] | None = None) -> Encoding:
    """Return what predictors read of a space, a family, or an encoding, with features added."""
    if isinstance(subject, Encoding):
        if not features:
            return subject
        return replace(subject, features={**subject.features, **features})
    if isinstance(subject, SearchSpace):
        return Encoding(subject, dict(features or {}))
    return Encoding(subject.space, dict(features or {}), subject.graphs, has_paths=False)


def under(prefix: str, arrays: State) -> State:
    """Return the arrays whose names start with a prefix, without it."""
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}


def deal(n_archs: int, n_folds: int, seed: int) -> NDArray[np.int64]:
    """Deal archs out to folds of equal size; returns the fold of each arch `[n_archs]`."""
    return np.random.default_rng(seed).permutation(n_archs) % n_folds


def calibration_factor(scores: Floats, left_out: Scores) -> float:
    """Return the factor on standard deviations with which the intervals of archs left out hold their share."""
    n = len(scores)
    deviations = np.abs(scores - left_out.mean) / left_out.std
    factor = float(np.quantile(deviations, min(1.0, INTERVAL * (n + 1) / n)) / HALF_WIDTH_STDS)
    return max(factor, 1.0 if n < _LEAST_CALIBRATED else 1e-6)


def _reads(encoding: Encoding) -> dict[str, str]:
    """Return what a fitted predictor depends on beside its features: the choices, and whether there are graphs."""
    return {"choices": repr(encoding.space.choices), "graph": str(encoding.graph is not None)}
