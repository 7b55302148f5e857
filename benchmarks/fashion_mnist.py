"""Fashion-MNIST from end to end: `python -m benchmarks.fashion_mnist [DIR]` writes docs/results/fashion_mnist.md.

Runs the recipe (or goes on with the run in DIR), then measures the front that it found and 200 fresh random archs in
one way: accuracy on all test images, which the search never saw, and latency of the whole network. Their hypervolumes
are compared: the area of latency and error that a set of archs beats, up to a common worst point.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.machine import machine
from ofa import Arch
from ofa.cli.output import progress
from ofa.cost.latency.profile import reference
from ofa.data.loaders import eval_batches
from ofa.devices import measure as devices
from ofa.devices.device import Model
from ofa.evaluate.calibrate import calibrate
from ofa.evaluate.metrics import evaluate
from ofa.pipeline.accuracy_store import Sample, denoised
from ofa.pipeline.run import Run, open_run
from ofa.pipeline.stage import Progress
from ofa.search.pareto import hypervolume, non_dominated

RESULT = Path("docs/results/fashion_mnist.md")
N_RANDOM, DRAWS, RESAMPLED = 200, 3, 500

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def main(folder: Path) -> None:
    subprocess.run([sys.executable, "-m", "ofa", "run", "fashion_mnist", "--run", folder, "--resume"], check=True)
    run = open_run(folder)
    space = run.family.space
    front = [space.arch(entry["arch"]) for entry in run.read_json("front.json")["front"]]
    rng = np.random.default_rng(1)
    random = [space.decode(row) for row in space.sample(N_RANDOM, rng)]
    with progress("measure") as on_progress:
        validation_percent, right, latency_ms = measure(run, [*front, *random], on_progress)
    n, every = len(front), np.arange(len(front) + N_RANDOM)
    chosen = n + np.flatnonzero(non_dominated(np.stack([latency_ms, -validation_percent], 1)[n:]))
    sets = {
        f"the front ({n} archs, chosen on validation images)": every[:n],
        f"{N_RANDOM} random archs, {len(chosen)} of them chosen on validation images": chosen,
        f"all {N_RANDOM} random archs: the best on test images": every[n:],
    }
    sets |= {f"{n} random archs, draw {i + 1}": n + rng.permutation(N_RANDOM)[:n] for i in range(DRAWS)}
    error_percent = 100 - 100 * right.mean(axis=1)
    worst = (float(latency_ms.max()) * 1.01, float(error_percent.max()) * 1.01)
    found = volumes(latency_ms, error_percent, sets, worst)
    images = rng.integers(right.shape[1], size=(RESAMPLED, right.shape[1]))
    again = np.array([volumes(latency_ms, 100 - 100 * right[:, some].mean(axis=1), sets, worst) for some in images])
    spread = (again[:, :1] - again).std(axis=0)
    lines = [
        f"| {name} | {found[i]:.3f} | {f'{found[0] - found[i]:+.3f} ± {spread[i]:.3f}' if i else ''} |"
        for i, name in enumerate(sets)
    ]
    write(run, lines, worst)


def volumes(latency_ms: Floats, error_percent: Floats, sets: dict[str, Ints], worst: tuple[float, float]) -> Floats:
    """The hypervolume of each set of archs."""
    losses = np.stack([latency_ms, error_percent], axis=1)
    return np.array([hypervolume(losses[some], worst) for some in sets.values()])


def measure(run: Run, archs: list[Arch], on_progress: Progress) -> tuple[Floats, NDArray[np.bool_], Floats]:
    """Measures archs on validation images, test images, and the run's device.

    Returns:
        Validation accuracy in percent, denoised `[n]`; which test images are classified rightly `[n, images]`; latency
        in ms `[n]`.
    """
    supernet, config = run.supernet(), run.recipe.sample
    validation: dict[int, Sample] = {}
    right: dict[int, NDArray[np.bool_]] = {}
    networks = {}
    for resolution in run.family.resolutions:
        training = eval_batches(run.data, run.data.train, resolution, limit=config.calibration_images)
        judged = eval_batches(run.data, run.data.validation, resolution, limit=config.images)
        test = eval_batches(run.data, run.data.test, resolution)
        for i, arch in enumerate(archs):
            if arch["resolution"] == resolution:
                network = supernet.extract(arch).to(memory_format=torch.channels_last)
                calibrate(network, training)
                found = evaluate(network, judged)
                validation[i] = Sample(found.top1_percent, found.loss)
                with torch.no_grad():
                    right[i] = np.concatenate([(network(x).argmax(1) == y).numpy() for x, y in test])
                networks[str(i)] = Model.of(network, run.family.input_shape(arch))
                on_progress(len(right), len(archs), f"accuracy {100 * right[i].mean():.1f}%")
    timings = devices.measure(run.device, networks, reference(run.family), run.rng("benchmark"))
    order = range(len(archs))
    estimates = denoised(run, [validation[i] for i in order])
    return estimates, np.stack([right[i] for i in order]), np.array([timings[str(i)].median_ms for i in order])


def write(run: Run, compared: list[str], worst: tuple[float, float]) -> None:
    """Writes the page of results."""
    summary, fit = run.read_json("summary.json"), run.read_json("predictor.json")
    seconds = summary["seconds"]
    lines = [
        "# Fashion-MNIST, end to end",
        "",
        "Made by `make bench-fashion-mnist`: `ofa run fashion_mnist`, then the comparison below. Accuracies are on",
        "the 10,000 test images, taken from the exported ONNX files; latencies are measured with onnxruntime,",
        "1 thread, batch 1.",
        "",
        f"Machine: {machine()}.",
        "",
        "| level | test top-1 % | latency ms | predicted ms | MACs M | params M | pixels | max abs diff to PyTorch |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {i} | {level['top1_percent']:.2f} | {level['latency_ms']:.3f} "
        f"| {level['predicted_latency_ms']:.3f} | {level['macs_m']:.2f} | {level['params_m']:.3f} "
        f"| {level['arch']['resolution']} | {level['max_abs_diff']:.1e} |"
        for i, level in enumerate(summary["levels"])
    ]
    lines += [
        "",
        f"Accuracy predictor: Kendall tau {fit['kendall_tau']:.3f}, RMSE {fit['rmse_percent']:.2f} points "
        f"({fit['n_test']} archs, fitted on {fit['n_fit']}).",
        "",
        f"Time: {sum(seconds.values()) / 60:.1f} minutes ("
        + ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items())
        + ").",
        "",
        "## The front against random archs",
        "",
        f"The front and {N_RANDOM} fresh random archs of the same supernet, all measured in one way: error on the "
        f"{len(run.data.test):,} test images, latency of the whole network. Hypervolume up to {worst[0]:.3f} ms and "
        f"{worst[1]:.1f}% error, in ms times percent. ±: standard deviation of the difference over {RESAMPLED} "
        "draws of test images (bootstrap).",
        "",
        "| archs | hypervolume | the front minus these |",
        "| --- | --- | --- |",
        *compared,
    ]
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/fashion_mnist"))
