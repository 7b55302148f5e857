"""Search the precision too: `python -m benchmarks.precisions [RUN_DIR]` writes docs/results/precisions.md.

Trains the recipe `fashion_mnist` for 3 epochs, with two targets on one device: one in float32, one whose
precision is searched. Then it measures the archs of both fronts anew: as files, on the test images and on the device.
At last, predicted accuracies in int8 are compared with those of archs that were never quantized before.
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
import numpy as np
import yaml
from numpy.typing import NDArray

import ofa
from benchmarks.int8_predictions import int8_predictions
from benchmarks.page import save_plot, table, write_page
from ofa.cli.output import progress
from ofa.devices.device import Model
from ofa.pipeline.level_files import extract, range_images
from ofa.pipeline.recipe_file import load_recipe
from ofa.pipeline.run import Run
from ofa.pipeline.stage import Progress
from ofa.pipeline.target import Target
from ofa.search.pareto import hypervolume

RESAMPLES = 500
INTRODUCTION = """
# The precision is searched too

This page compares two targets of one run of `fashion_mnist`, trained for 3 epochs, on one device: `local`
has float32 files, `auto` may have any precision that the device runs. Every arch of both fronts was written as a file
in its precision, and that file was scored on the 10,000 test images, which no search saw, and measured on the device.
`auto` searched after `local` and knew the accuracies that it had measured, so it also found more archs in float32.

Made by `python -m benchmarks.precisions`.
"""

Floats = NDArray[np.float64]


class Measured(NamedTuple):
    """The files of a front: latencies `[n]`, the search's estimates `[n]`, and images that are right `[n, images]`."""

    precisions: list[str]
    latency_ms: Floats
    estimated_top1_percent: Floats
    is_correct: NDArray[np.bool_]

    @property
    def top1_percent(self) -> Floats:
        """Accuracies on the test images, in percent `[n]`."""
        percent: Floats = 100 * self.is_correct.mean(axis=1)
        return percent

    def best(self, limit_ms: float) -> int | None:
        """Return the position of the file that the search estimates best of those as fast, None without any."""
        fast = np.flatnonzero(self.latency_ms <= limit_ms)
        return int(fast[self.estimated_top1_percent[fast].argmax()]) if len(fast) else None


def main(folder: Path) -> None:
    """Run the recipe, measure both fronts, and write the page."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    recipe = folder.with_suffix(".yaml")
    recipe.write_text(yaml.safe_dump(_recipe()))
    subprocess.run([sys.executable, "-m", "ofa", "run", recipe, "--run", folder, "--resume"], check=True)
    run = ofa.open_run(folder)
    fronts = {target.name: target.read_json("front.json")["front"] for target in run.targets}
    with progress("measure") as on_progress:
        measured = measure_fronts(run, fronts, on_progress)
    write_page(
        "precisions",
        INTRODUCTION,
        *_levels(run),
        *_comparison(measured, np.random.default_rng(3)),
        *int8_predictions(run, run.target("auto")),
    )


def _recipe() -> dict[str, Any]:
    content = load_recipe("fashion_mnist").model_dump(mode="json", exclude_unset=True)
    (phase,) = content["train"]["phases"]
    phase["epochs"] = 3
    content["profile"] = {"networks": 60, "checks": 12}
    content["search"] = {"verify": 16, "rounds": 2}
    common = {"levels": 5, "min_top1_percent": 85.0}
    content["targets"] = [{"name": "local", **common}, {"name": "auto", "precision": "auto", **common}]
    return content


def measure_fronts(run: Run, fronts: dict[str, list[dict[str, Any]]], on_progress: Progress) -> dict[str, Measured]:
    """Write each entry of the fronts as a file, score it on the test images, and measure its latency."""
    target, supernet, entries = run.target("auto"), run.supernet(), [one for front in fronts.values() for one in front]
    correct, latency_ms = [], np.zeros(len(entries))
    with tempfile.TemporaryDirectory() as temporary:
        models: dict[str, dict[str, Model]] = {}
        for i, entry in enumerate(entries):
            arch, precision, path = entry["arch"], entry["precision"], Path(temporary) / f"{i}.onnx"
            network, shape, images = extract(run, supernet, arch), run.family.input_shape(arch), range_images(run, arch)
            target.format.write(network, shape, path, precision=precision, images=images, metadata={})
            models.setdefault(precision, {})[str(i)] = Model.of(network, shape, file=path)
            correct.append(_is_correct(target, path, int(arch["resolution"])))
            on_progress(i + 1, len(entries), f"{precision}, {100 * correct[-1].mean():.2f}%")
        for precision, of_precision in models.items():
            timings = target.measure(precision, of_precision, "benchmark")
            for name, timing in timings.items():
                latency_ms[int(name)] = timing.median_ms
    result, start = {}, 0
    for name, front in fronts.items():
        part = slice(start, start + len(front))
        precisions = [entry["precision"] for entry in front]
        estimated = np.array([entry["estimated_top1_percent"] for entry in front])
        result[name] = Measured(precisions, latency_ms[part], estimated, np.stack(correct[part]))
        start = part.stop
    return result


def _is_correct(target: Target, path: Path, resolution: int) -> NDArray[np.bool_]:
    model, data = target.format.load(path), target.run.data
    batches = ofa.eval_batches(data, data.test, resolution)
    return np.concatenate([model(x.contiguous().numpy()).argmax(axis=1) == y.numpy() for x, y in batches])


def _levels(run: Run) -> list[str]:
    rows = [
        f"{target.name} | {number} | {level.precision} | {level.arch['resolution']} | {level.macs_m:.2f} | "
        f"{level.size_mib:.3f} | {level.latency_ms:.4f} | {level.top1_percent:.2f} | "
        f"{level.accuracy_drop_percent:+.2f} | {level.same_top1_percent:.2f}"
        for target in run.targets
        for number, level in enumerate(target.levels)
    ]
    minutes = sum(record["seconds"] for record in run.target("auto").records().values()) / 60
    header = "target | level | precision | pixels | MACs M | MiB | latency ms | test top-1 % | lost | same class %"
    return [
        "## Levels",
        "Of the file itself. Lost: accuracy of the network in PyTorch, in float32, less that of the file, in points; "
        f"same class: test images for which both agree. The target `auto` took {minutes:.1f} minutes, with the tables "
        "of all precisions.",
        table(header, rows),
    ]


def _comparison(measured: dict[str, Measured], rng: np.random.Generator) -> list[str]:
    local, auto = measured["local"], measured["auto"]
    n_images = auto.is_correct.shape[1]
    resamples = rng.integers(n_images, size=(RESAMPLES, n_images))
    rows, estimated, on_test = [], [], []
    for limit_ms in np.sort(local.latency_ms):
        i, j = local.best(limit_ms), auto.best(limit_ms)
        assert i is not None  # the arch of this latency itself
        cells = [f"{limit_ms:.4f}", _text(local, i)]
        if j is None:
            rows.append(" | ".join([*cells, "nothing as fast", "", ""]))
            continue
        gained = 100.0 * (auto.is_correct[j] * 1.0 - local.is_correct[i])
        estimated.append(float(auto.estimated_top1_percent[j] - local.estimated_top1_percent[i]))
        on_test.append(float(gained.mean()))
        std = gained[resamples].mean(axis=1).std()
        rows.append(" | ".join([*cells, _text(auto, j), f"{estimated[-1]:+.2f}", f"{on_test[-1]:+.2f} ± {std:.2f}"]))
    worst_ms = 1.01 * float(max(one.latency_ms.max() for one in measured.values()))
    worst_percent = 1.01 * float(max((100 - one.top1_percent).max() for one in measured.values()))
    areas = {
        name: hypervolume(np.stack([one.latency_ms, 100 - one.top1_percent], axis=1), (worst_ms, worst_percent))
        for name, one in measured.items()
    }
    counts = ", ".join(f"{auto.precisions.count(one)} in {one}" for one in dict.fromkeys(auto.precisions))
    gains = "; ".join(
        f"{name} {np.mean(values):+.2f} points on average, {min(values):+.2f} at least, {max(values):+.2f} at most"
        for name, values in (("by the estimates", estimated), ("on the test images", on_test))
    )
    _plot(measured)
    return [
        "## The two fronts",
        f"The float32 front has {len(local.precisions)} archs, that of `auto` {counts}. For the latency of each arch "
        f"of the first, the file of either front that the search estimates best of those as fast. Difference: {gains}. "
        f"±: standard deviation over {RESAMPLES} bootstrap resamples of the test images. The hypervolume on the test "
        f"images, up to {worst_ms:.3f} ms and {worst_percent:.1f}% error, is {areas['local']:.3f} ms times percent for "
        f"float32, {areas['auto']:.3f} for `auto`.",
        "![Accuracy over latency of the two fronts](precisions.svg)",
        table("latency ms, at most | float32 | auto | difference by the estimates | on the test images", rows),
    ]


def _text(one: Measured, i: int) -> str:
    return f"{one.top1_percent[i]:.2f}% in {one.latency_ms[i]:.4f} ms, {one.precisions[i]}"


def _plot(measured: dict[str, Measured]) -> None:
    figure, axes = plt.subplots(figsize=(7, 4))
    axes.plot(measured["local"].latency_ms, measured["local"].top1_percent, "o", color="0.6", label="float32 front")
    for precision in dict.fromkeys(measured["auto"].precisions):
        of_precision = np.array([one == precision for one in measured["auto"].precisions])
        latency_ms, percent = measured["auto"].latency_ms, measured["auto"].top1_percent
        axes.plot(latency_ms[of_precision], percent[of_precision], ".", label=f"auto, {precision}")
    axes.set(xlabel="latency, ms", ylabel="test top-1, %", xscale="log")
    axes.legend()
    save_plot(figure, "precisions")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/precisions"))
