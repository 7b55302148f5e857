"""What a search knows of the archs that were measured: accuracies with less noise, accuracy drops, and the front."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from ofa.core.errors import InfeasibleError
from ofa.pipeline.accuracy_store import Samples, denoised, n_validation_images
from ofa.pipeline.choose import objective_key
from ofa.pipeline.costs import CostFunction
from ofa.pipeline.run import Run
from ofa.pipeline.target import Target
from ofa.predict.denoise import Floats, estimate_percent, model_rmse_percent
from ofa.predict.precision_drop import PrecisionDrop
from ofa.predict.predictor import Predictor
from ofa.search.pareto import non_dominated

Entry = dict[str, Any]


def fit_predictor(run: Run, predictor: Predictor, samples: Samples) -> Predictor:
    """Fit an accuracy predictor to the float32 accuracies of samples."""
    return predictor.fit(run.family.space.rows(samples), denoised(run, samples.values()))


def precision_drop(run: Run, accuracies: Mapping[str, Samples], precision: str) -> CostFunction:
    """Return the function from rows `[n, n_choices]` to the accuracy that archs lose by a precision, in points `[n]`.

    It is learned from archs that were measured in both precisions. Without any, nothing is assumed to be lost.
    """
    float32, lossy = accuracies["float32"], accuracies.get(precision, {})
    archs = [arch for arch in lossy if arch in float32]
    if precision == "float32" or not archs:
        return lambda rows: np.zeros(len(rows))
    drop_percent = np.array([float32[arch].top1_percent - lossy[arch].top1_percent for arch in archs])
    return PrecisionDrop(run.family.space, run.family.space.rows(archs), drop_percent)


def read_model_rmse_percent(run: Run) -> float:
    """Return the fitted predictor's error against true accuracies, from archs held out of the fit."""
    metrics = run.read_json("predictor.json")
    measured, predicted = (np.array(metrics[f"{kind}_percent"]) for kind in ("measured", "predicted"))
    return model_rmse_percent(measured, predicted, n_validation_images(run))


def predicted_and_estimated(run: Run, samples: Samples, predictor: Predictor) -> tuple[Floats, Floats]:
    """Return the predicted float32 accuracies in percent `[n]` of samples, and those weighed against the measured."""
    predicted, measured = predictor(run.family.space.rows(samples)), denoised(run, samples.values())
    rmse_percent, n_images = read_model_rmse_percent(run), n_validation_images(run)
    return predicted, estimate_percent(measured, predicted, n_images=n_images, model_rmse_percent=rmse_percent)


def measured_archs(
    target: Target,
    costs: Mapping[str, Mapping[str, CostFunction]],
    accuracies: Mapping[str, Samples],
    predictor: Predictor,
) -> list[Entry]:
    """Return every arch that was measured in a precision of the target, with its costs, prediction and estimate.

    The estimate in a precision is that in float32 less the learned drop. Archs that lose more than the target allows
    are left out.
    """
    run, space, float32 = target.run, target.run.family.space, accuracies["float32"]
    predicted, estimated = predicted_and_estimated(run, float32, predictor)
    position = {arch: i for i, arch in enumerate(float32)}
    entries = []
    for precision, cost in costs.items():
        samples = {arch: sample for arch, sample in accuracies.get(precision, {}).items() if arch in position}
        rows, at = space.rows(samples), [position[arch] for arch in samples]
        drop = precision_drop(run, accuracies, precision)(rows)
        values = {
            "predicted_latency_ms": cost["latency_ms"](rows),
            "accuracy_drop_percent": drop,
            "predicted_top1_percent": predicted[at] - drop,
            "estimated_top1_percent": estimated[at] - drop,
        } | {name: function(rows) for name, function in cost.items() if name != "latency_ms"}
        for i, (arch, sample) in enumerate(samples.items()):
            entry: Entry = {"arch": dict(arch), "precision": precision} | sample._asdict()
            entries.append(entry | {name: float(value[i]) for name, value in values.items()})
    most = target.config.max_accuracy_drop_percent
    return [entry for entry in entries if entry["precision"] == "float32" or entry["accuracy_drop_percent"] <= most]


def measured_front(target: Target, measured: list[Entry]) -> list[Entry]:
    """Return the Pareto front of measured archs by estimated accuracy, the best in the objective first.

    Raises:
        InfeasibleError: there are no archs, as all lose too much by the precision.
    """
    if not measured:
        raise InfeasibleError(
            f"target {target.name!r}: every arch loses more than {target.config.max_accuracy_drop_percent:g} points in "
            f"{target.config.precision}; raise max_accuracy_drop_percent or choose another precision"
        )
    key = objective_key(target.config.objective)
    losses = np.array([[entry[key], -entry["estimated_top1_percent"]] for entry in measured])
    front = [entry for entry, on in zip(measured, non_dominated(losses), strict=True) if on]
    return sorted(front, key=lambda entry: float(entry[key]))
