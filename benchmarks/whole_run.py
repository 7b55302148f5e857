"""Evaluate a whole run of a recipe: `python -m benchmarks.whole_run RECIPE [RUN_DIR]` writes docs/results/RECIPE.md.

Runs the recipe, or resumes the run, then compares its front with random archs: both are measured on the test images,
which the search never saw, and as whole networks on the run's device.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

import ofa
from benchmarks.page import table, write_page
from ofa.cli.output import progress
from ofa.cost.latency.profile import reference
from ofa.devices import measure as devices
from ofa.devices.device import Model
from ofa.evaluate.subnets import extract_calibrated
from ofa.pipeline.accuracy_store import Sample, denoised
from ofa.pipeline.run import Run
from ofa.pipeline.stage import Progress
from ofa.search.pareto import hypervolume, non_dominated

N_RANDOM, SUBSETS, RESAMPLES = 200, 3, 500
TITLES = {"fashion_mnist": "Fashion-MNIST", "emoji": "Emoji"}
INTRODUCTION = """
# {title}, end to end

This page shows what one run of the recipe `{recipe}` yields: the exported levels, the quality of the accuracy
predictor, the time of each stage, and the front that the search found, compared with random subnets.

Made by `make bench-{target}`. Accuracies of the levels are those of the exported ONNX files on the {n_test:,} test
images. Latencies are measured with onnxruntime, 1 thread, batch 1.
"""

Floats = NDArray[np.float64]
Mask = NDArray[np.bool_]


def main(recipe: str, folder: Path) -> None:
    subprocess.run([sys.executable, "-m", "ofa", "run", recipe, "--run", folder, "--resume"], check=True)
    run = ofa.open_run(folder)
    space = run.family.space
    front = [space.arch(entry["arch"]) for entry in run.target().read_json("front.json")["front"]]
    rng = np.random.default_rng(1)
    random = [space.decode(row) for row in space.sample(N_RANDOM, rng)]
    with progress("measure") as on_progress:
        measurements = measure(run, [*front, *random], on_progress)
    sections = comparison(*measurements, n_front=len(front), rng=rng)
    introduction = INTRODUCTION.format(
        title=TITLES[recipe], recipe=recipe, target=recipe.replace("_", "-"), n_test=len(run.data.test)
    )
    write_page(recipe, introduction, *run_sections(run), *sections)


def measure(run: Run, archs: list[ofa.Arch], on_progress: Progress) -> tuple[Floats, Mask, Floats]:
    """Measure archs on validation images, test images, and the run's device.

    Returns:
        Denoised validation accuracies in percent `[n]`; whether each test image is classified correctly `[n, images]`;
        latencies of whole networks in ms `[n]`.
    """
    supernet, data, config = run.supernet(), run.data, run.recipe.sample
    samples: dict[int, Sample] = {}
    is_correct: dict[int, Mask] = {}
    models: dict[str, Model] = {}
    for resolution in run.family.resolutions:
        train = ofa.eval_batches(data, data.train, resolution, limit=config.calibration_images)
        validation = ofa.eval_batches(data, data.validation, resolution, limit=config.images)
        test = ofa.eval_batches(data, data.test, resolution)
        for i, arch in enumerate(archs):
            if arch["resolution"] == resolution:
                network = extract_calibrated(supernet, arch, train)
                metrics = ofa.evaluate(network, validation)
                samples[i] = Sample(metrics.top1_percent, metrics.loss)
                with torch.no_grad():
                    is_correct[i] = np.concatenate([(network(x).argmax(1) == y).numpy() for x, y in test])
                models[str(i)] = Model.of(network, run.family.input_shape(arch))
                on_progress(len(models), len(archs), f"accuracy {100 * is_correct[i].mean():.1f}%")
    timings = devices.measure(run.target().device("float32"), models, reference(run.family), run.rng("benchmark"))
    order = range(len(archs))
    validation_percent = denoised(run, [samples[i] for i in order])
    latency_ms = np.array([timings[str(i)].median_ms for i in order])
    return validation_percent, np.stack([is_correct[i] for i in order]), latency_ms


def run_sections(run: Run) -> list[str]:
    summary, predictor = run.read_json("summary.json"), run.read_json("predictor.json")
    levels = summary["targets"][run.target().name]["levels"]
    rows = [
        f"{i} | {level['top1_percent']:.2f} | {level['latency_ms']:.3f} | {level['predicted_latency_ms']:.3f} "
        f"| {level['macs_m']:.2f} | {level['params_m']:.3f} | {level['arch']['resolution']} "
        f"| {level['max_abs_diff']:.1e}"
        for i, level in enumerate(levels)
    ]
    header = "level | test top-1 % | latency ms | predicted ms | MACs M | params M | pixels | max abs diff to PyTorch"
    seconds_of = summary["seconds"] | summary["targets"][run.target().name]["seconds"]
    times = ", ".join(f"{stage} {seconds:.0f} s" for stage, seconds in seconds_of.items())
    return [
        table(header, rows),
        f"Accuracy predictor: Kendall tau {predictor['kendall_tau']:.3f}, RMSE {predictor['rmse_percent']:.2f} points "
        f"on {predictor['n_archs']} archs, each predicted by models that had not seen it.",
        *_judged(run.target().read_json("front.json").get("judged")),
        *_finetuned(run, levels),
        f"Time: {sum(seconds_of.values()) / 60:.1f} minutes ({times}).",
    ]


def _judged(verdict: dict[str, Any] | None) -> list[str]:
    """Say how far the front that was found is from the best one known, if the recipe has `search.judge`."""
    if verdict is None:
        return []
    return [
        f"The front that the search found dominates {verdict['area_percent']:.1f} % of the area that the best one "
        f"known dominates, and is at most {verdict['gap_percent']:.2f} points below it, on validation images. "
        f"{verdict['archs']} more archs beside it were measured to know that, in {verdict['minutes']:g} minutes; the "
        "better ones of them were open to choice as levels."
    ]


def _finetuned(run: Run, levels: list[dict[str, Any]]) -> list[str]:
    """Say what finetuning gave each level on the test images, if the recipe has it."""
    if run.recipe.finetune is None:
        return []
    rows = []
    for i, level in enumerate(levels):
        arch, finetuned = run.family.space.arch(level["arch"]), level["top1_percent"]
        test = ofa.eval_batches(run.data, run.data.test, int(arch["resolution"]))
        inherited = ofa.evaluate(run.network(arch), test).top1_percent
        rows.append(f"{i} | {inherited:.2f} | {finetuned:.2f} | {finetuned - inherited:+.2f}")
    return [
        f"Each level was finetuned before its export, {run.recipe.finetune.epochs} epochs. Top-1 on the test images:",
        table("level | inherited % | finetuned % | gain", rows),
    ]


def comparison(
    validation_percent: Floats, is_correct: Mask, latency_ms: Floats, *, n_front: int, rng: np.random.Generator
) -> list[str]:
    """Compare the hypervolumes of the front (the first archs) and of sets of random archs (the others)."""
    n, n_images = is_correct.shape
    selected = n_front + np.flatnonzero(non_dominated(np.stack([latency_ms, -validation_percent], axis=1)[n_front:]))
    sets = {
        f"the front ({n_front} archs, selected on validation images)": np.arange(n_front),
        f"{N_RANDOM} random archs, {len(selected)} of them selected on validation images": selected,
        f"all {N_RANDOM} random archs: the best on test images": np.arange(n_front, n),
    }
    for i in range(SUBSETS):
        sets[f"{n_front} random archs, subset {i + 1}"] = n_front + rng.permutation(N_RANDOM)[:n_front]
    error_percent = 100 - 100 * is_correct.mean(axis=1)
    worst_ms, worst_percent = 1.01 * float(latency_ms.max()), 1.01 * float(error_percent.max())

    def hypervolumes(error_percent: Floats) -> Floats:
        losses = np.stack([latency_ms, error_percent], axis=1)
        return np.array([hypervolume(losses[members], (worst_ms, worst_percent)) for members in sets.values()])

    areas = hypervolumes(error_percent)
    resamples = rng.integers(n_images, size=(RESAMPLES, n_images))
    resampled = np.array([hypervolumes(100 - 100 * is_correct[:, images].mean(axis=1)) for images in resamples])
    gaps, std = areas[0] - areas, (resampled[:, :1] - resampled).std(axis=0)
    rows = [f"{name} | {areas[i]:.3f} | {f'{gaps[i]:+.3f} ± {std[i]:.3f}' if i else ''}" for i, name in enumerate(sets)]
    explanation = f"""
The front and {N_RANDOM} new random archs of the same supernet, all with the weights they inherit: error on the
{n_images:,} test images and latency of the whole network. The hypervolume is the area that a set of archs dominates,
up to {worst_ms:.3f} ms and {worst_percent:.1f}% error, in ms times percent; larger is better. ±: standard deviation of
the difference over {RESAMPLES} bootstrap resamples of the test images."""
    header = "archs | hypervolume | front minus these"
    return ["## The front against random archs", explanation, table(header, rows)]


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2] if len(sys.argv) > 2 else f"runs/{sys.argv[1]}"))
