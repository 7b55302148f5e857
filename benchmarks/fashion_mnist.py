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

from benchmarks.machine import machine
from ofa import Arch, cost
from ofa.batches import eval_batches
from ofa.calibrate import accuracy_percent, calibrate
from ofa.cli.output import progress
from ofa.device import Model
from ofa.pipeline.evaluate import load_supernet
from ofa.pipeline.run import Progress, Run
from ofa.search import hypervolume, non_dominated

RESULT = Path("docs/results/fashion_mnist.md")
N_RANDOM, DRAWS = 200, 5


def main(folder: Path) -> None:
    subprocess.run([sys.executable, "-m", "ofa", "run", "fashion_mnist", "--run", folder, "--resume"], check=True)
    run = Run.open(folder)
    space = run.family.space
    front = [space.arch(entry["arch"]) for entry in run.read_json("front.json")["front"]]
    rng = np.random.default_rng(1)
    random = [space.decode(row) for row in space.sample(N_RANDOM, rng)]
    with progress("measure") as on_progress:
        validation, test, latency_ms = measure(run, [*front, *random], on_progress)
    losses, on_validation = np.stack([latency_ms, 100 - test], 1), np.stack([latency_ms, 100 - validation], 1)
    worst = (float(losses[:, 0].max()) * 1.01, float(losses[:, 1].max()) * 1.01)
    n = len(front)
    chosen = n + np.flatnonzero(non_dominated(on_validation[n:]))
    draws = [hypervolume(losses[n:][rng.permutation(N_RANDOM)[:n]], worst) for _ in range(DRAWS)]
    volumes = {
        f"the front ({n} archs, chosen on validation images)": f"{hypervolume(losses[:n], worst):.4f}",
        f"all {N_RANDOM} random archs, chosen on test images": f"{hypervolume(losses[n:], worst):.4f}",
        f"{len(chosen)} of them, chosen on validation images": f"{hypervolume(losses[chosen], worst):.4f}",
        f"{n} random archs, {DRAWS} draws": f"{min(draws):.4f} to {max(draws):.4f}",
    }
    write(run, volumes, worst)


def measure(run: Run, archs: list[Arch], on_progress: Progress) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Validation and test accuracy in percent and latency in ms of each arch, `[n]` each."""
    supernet = load_supernet(run)
    accuracies: dict[int, tuple[float, float]] = {}
    networks = {}
    for resolution in run.family.resolutions:
        training = eval_batches(run.data, run.data.train, resolution, limit=run.recipe.sample.calibration_images)
        splits = [eval_batches(run.data, split, resolution) for split in (run.data.validation, run.data.test)]
        for i, arch in enumerate(archs):
            if arch["resolution"] == resolution:
                network = supernet.extract(arch).to(memory_format=torch.channels_last)
                calibrate(network, training)
                accuracies[i] = (accuracy_percent(network, splits[0]), accuracy_percent(network, splits[1]))
                networks[str(i)] = Model.of(network, run.family.input_shape(arch))
                on_progress(len(accuracies), len(archs), f"accuracy {accuracies[i][1]:.1f}%")
    timings = cost.measure(run.device, networks, cost.reference(run.family), run.rng("benchmark"))
    validation, test = np.array([accuracies[i] for i in range(len(archs))]).T
    return validation, test, np.array([timings[str(i)].median_ms for i in range(len(archs))])


def write(run: Run, volumes: dict[str, str], worst: tuple[float, float]) -> None:
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
        f"| {i} | {level['accuracy_top1_percent']:.2f} | {level['latency_ms']:.3f} "
        f"| {level['predicted_latency_ms']:.3f} | {level['macs_m']:.2f} | {level['params_m']:.3f} "
        f"| {level['arch']['resolution']} | {level['parity_max_abs_diff']:.1e} |"
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
        f"{worst[1]:.1f}% error, in ms times percent:",
        "",
        "| archs | hypervolume |",
        "| --- | --- |",
        *(f"| {name} | {volume} |" for name, volume in volumes.items()),
    ]
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/fashion_mnist"))
