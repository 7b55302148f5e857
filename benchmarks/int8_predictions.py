"""How well accuracies in int8 are predicted, for archs that were never quantized before."""

import numpy as np
from scipy.stats import kendalltau

from benchmarks.page import table
from ofa.pipeline.accuracy_store import n_validation_images, read_accuracies
from ofa.pipeline.level_files import accuracy_measure
from ofa.pipeline.measured import precision_drop
from ofa.pipeline.run import Run
from ofa.pipeline.target import Target

N_ARCHS = 60


def int8_predictions(run: Run, target: Target) -> list[str]:
    """Return a section that compares predictions with measurements, in float32 and int8, for archs in no sample."""
    accuracies, precision = read_accuracies(run), "int8_static"
    rng, space = np.random.default_rng(5), run.family.space
    archs = [space.decode(row) for row in space.unique(space.sample(4 * N_ARCHS, rng))]
    new = [arch for arch in archs if arch not in accuracies[precision] and arch not in accuracies["float32"]][:N_ARCHS]
    measure = accuracy_measure(run, target.format)
    measured = {one: dict(measure(one, new)) for one in ("float32", precision)}
    predicted = target.predictor()(space.rows(new))
    drop = precision_drop(run, accuracies, precision)(space.rows(new))
    lines = []
    for one, values in (("float32", predicted), (precision, predicted - drop)):
        actual = np.array([measured[one][arch].top1_percent for arch in new])
        errors = np.abs(values - actual)
        tau = float(kendalltau(values, actual).statistic)
        lines.append(f"{one} | {tau:.3f} | {errors.mean():.2f} | {np.sqrt((errors**2).mean()):.2f}")
    drops = np.array([measured["float32"][arch].top1_percent - measured[precision][arch].top1_percent for arch in new])
    n_images, error_rate = n_validation_images(run), 1 - predicted.mean() / 100
    chance = 100 * np.sqrt(error_rate * (1 - error_rate) / n_images)
    return [
        "## Predicted accuracy in int8",
        f"{len(new)} random archs that no search had measured, on {n_images} validation images, by whose choice alone "
        f"an accuracy varies by {chance:.2f} points (standard error). The predictor and the drop were learned from "
        f"{len(accuracies['float32'])} archs in float32, {len(accuracies[precision])} in int8. "
        f"They lose {drops.mean():.2f} points on average ({drops.std():.2f} standard deviation), predicted "
        f"{drop.mean():.2f}; the error of the predicted drop is {np.abs(drop - drops).mean():.2f} on average.",
        table("precision | Kendall tau | mean error, points | RMSE, points", lines),
    ]
