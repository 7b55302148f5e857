"""Check a fleet run by plain runtimes: `python -m benchmarks.fleet [RUN_DIR]` writes docs/results/fleet.md.

Runs the recipe `fleet`, or resumes the run, adds a fifth target, and then knows nothing of this project but the files:
each level is loaded by its runtime alone, scored on the test images, weighed and timed. At last, the predicted accuracy
in int8 is compared with that of networks that were never quantized before.
"""

import hashlib
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import openvino
from numpy.typing import NDArray
from scipy.stats import kendalltau

import ofa
from benchmarks.page import table, write_page
from ofa.pipeline.accuracy_store import read_accuracies
from ofa.pipeline.compare import mean_loss, read_comparison
from ofa.pipeline.level_files import accuracy_measure
from ofa.pipeline.measured import precision_drop
from ofa.pipeline.run import Run

N_ARCHS, ROUNDS, BURST_MS = 60, 60, 3.0
SHARED = ("supernet.safetensors", "samples.json", "predictor.safetensors")
FIFTH = ("--name", "fifth", "--precision", "int8_static", "--limit", "size_mib=0.25", "--limit", "macs_m=0.2")
INTRODUCTION = """
# One training, five targets

This page shows what the recipe `fleet` makes of one training on handwritten digits: levels for four targets of one
computer, and for a fifth that `ofa specialize` added. Each level was then checked by a script that uses its runtime
alone.

Made by `python -m benchmarks.fleet`.
"""

Floats = NDArray[np.float64]


def main(folder: Path) -> None:
    """Run, specialize, check, and write the page."""
    _ofa("run", "fleet", "--run", folder, "--resume")
    before = _hashes(folder)
    start = time.monotonic()
    _ofa("specialize", folder, *FIFTH)
    seconds = time.monotonic() - start
    assert _hashes(folder) == before, "specialize changed what the targets share"
    run = ofa.open_run(folder)
    write_page(
        "fleet",
        INTRODUCTION,
        *_times(run, seconds),
        *_levels(run),
        *_comparison(run),
        *_int8_predictions(run),
    )


def _ofa(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "ofa", *map(str, arguments)], check=True)


def _hashes(folder: Path) -> dict[str, str]:
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in SHARED}


def _times(run: Run, specialize_seconds: float) -> list[str]:
    stages = ("profile", "search", "export", "bundle")
    rows = []
    for target in run.targets:
        seconds = [target.records()[stage]["seconds"] for stage in stages]
        rows.append(" | ".join([target.name, *(f"{one:.0f}" for one in (*seconds, sum(seconds)))]))
    shared = {name: record["seconds"] for name, record in run.records().items() if name in ("train", "sample", "fit")}
    text = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in shared.items())
    return [
        "## Time",
        f"Made once: {text}. The fifth target took {specialize_seconds:.0f} s with start and report; "
        f"{', '.join(SHARED)} stayed the same, byte by byte. For each target, in seconds:",
        table("target | profile | search | export | bundle | together", rows),
    ]


def _levels(run: Run) -> list[str]:
    images = np.stack([run.data.test[i][0].numpy() for i in range(len(run.data.test))])
    labels = np.array([run.data.test[i][1] for i in range(len(run.data.test))])
    rows = []
    for target in run.targets:
        for number, level in enumerate(target.levels):
            path = target.folder / level.file
            device = target.latency_table(level.precision).device
            runner = (_by_openvino if device["device"] == "openvino-cpu" else _by_onnxruntime)(
                path, int(device["threads"])
            )
            side = int(level.arch["resolution"])
            batches = _preprocess(run, images, side)
            n_right = sum(
                int((runner(x).argmax(axis=1) == y).sum()) for x, y in zip(batches, _split(labels), strict=True)
            )
            accuracy = 100 * n_right / len(labels)
            assert abs(accuracy - level.top1_percent) < 1e-9, (path, accuracy, level.top1_percent)
            assert path.stat().st_size == level.bytes
            _check_precision(path, level.precision)
            latency_ms = _fastest_eighth_ms(runner, batches[0][: level.batch])
            rows.append(
                f"{target.name} | {number} | {level.precision} | {level.batch} | {level.size_mib:.3f} | "
                f"{level.top1_percent:.2f} | {accuracy:.2f} | {level.accuracy_drop_percent:+.2f} | "
                f"{level.latency_ms:.4f} | {latency_ms:.4f} | {100 * (latency_ms / level.latency_ms - 1):+.1f}"
            )
    header = (
        "target | level | precision | batch | MiB | test top-1 % | by the script | drop | latency ms | by the script "
        "| difference %"
    )
    return [
        "## Every level, by its runtime alone",
        "The script finds the precision in the file (QuantizeLinear, float16 tensors), its size, its accuracy to the "
        "last image, and its latency: the fastest eighth of bursts; the manifest has the statistic of the table.",
        table(header, rows),
    ]


def _preprocess(run: Run, images: NDArray[np.uint8], side: int) -> list[NDArray[np.float32]]:
    from export.preprocess import Preprocess

    data = run.data
    preprocess = Preprocess(side, data.in_channels, tuple(data.mean), tuple(data.std))
    return [preprocess(part[:, 0]) for part in _split(images)]


def _split(values: NDArray[Any]) -> list[NDArray[Any]]:
    return [values[start : start + 64] for start in range(0, len(values), 64)]


def _by_onnxruntime(path: Path, threads: int) -> Any:
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda x: session.run(None, {"images": x})[0]


def _by_openvino(path: Path, threads: int) -> Any:
    core = openvino.Core()
    options = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": "1", "INFERENCE_PRECISION_HINT": "f32"}
    compiled: dict[tuple[int, ...], Any] = {}

    def run(x: NDArray[np.float32]) -> NDArray[np.float32]:
        if x.shape not in compiled:
            model = core.read_model(path)
            model.reshape(list(x.shape))
            compiled[x.shape] = core.compile_model(model, "CPU", options).create_infer_request()
        request = compiled[x.shape]
        return np.array(next(iter(request.infer({0: x}, share_inputs=True).values())))

    return run


def _check_precision(path: Path, precision: str) -> None:
    graph = onnx.load(path).graph
    operators = {node.op_type for node in graph.node}
    types = {tensor.data_type for tensor in graph.initializer}
    has_precision = {
        "float32": not operators & {"QuantizeLinear", "DynamicQuantizeLinear"},
        "float16": onnx.TensorProto.FLOAT16 in types,
        "int8_static": "QuantizeLinear" in operators,
        "int8_dynamic": "DynamicQuantizeLinear" in operators,
    }
    assert has_precision[precision], (path, precision, operators)


def _fastest_eighth_ms(run: Any, x: NDArray[np.float32]) -> float:
    """Return the median of the fastest eighth of bursts, each the median of the runs in some milliseconds."""
    x, bursts = np.ascontiguousarray(x), []
    for _ in range(5):
        run(x)
    start = time.perf_counter()
    run(x)
    n_runs = max(1, round(BURST_MS / 1e3 / (time.perf_counter() - start)))
    for _ in range(ROUNDS):
        times = []
        for _ in range(n_runs):
            start = time.perf_counter()
            run(x)
            times.append(1e3 * (time.perf_counter() - start))
        bursts.append(float(np.median(times)))
    return float(np.median(sorted(bursts)[: max(1, ROUNDS // 8)]))


def _comparison(run: Run) -> list[str]:
    entries, names = read_comparison(run), [target.name for target in run.targets]
    rows = []
    for made_for in names:
        cells = [made_for]
        for name in names:
            loss = mean_loss(entries, made_for, name)
            cells.append("-" if loss is None else f"{loss[0]:+.2f} points, {loss[1]:+.0f}%")
        rows.append(" | ".join(cells))
    errors = [abs(entry["latency_ms"] / entry["predicted_latency_ms"] - 1) for entry in entries if entry["measured"]]
    return [
        "## What specializing is worth",
        "Rows: networks made for a target; columns: the target that they run on. By how many points that target's "
        "front is more accurate in the same time, and how much longer these take at the same accuracy (means).",
        table(" | ".join(["made for", *names]), rows),
        f"Measured anew on the other targets, {len(errors)} latencies differ from the prediction behind the matrix by "
        f"{100 * float(np.mean(errors)):.1f}% on average, {100 * float(np.max(errors)):.1f}% at most.",
    ]


def _int8_predictions(run: Run) -> list[str]:
    """Compare predictions in float32 and int8 with measurements of archs that were in no sample."""
    accuracies, precision = read_accuracies(run), "int8_static"
    rng, space = np.random.default_rng(5), run.family.space
    archs = [space.decode(row) for row in space.unique(space.sample(4 * N_ARCHS, rng))]
    new = [arch for arch in archs if arch not in accuracies[precision] and arch not in accuracies["float32"]][:N_ARCHS]
    measure = accuracy_measure(run, run.target("phone").format)
    measured = {one: dict(measure(one, new)) for one in ("float32", precision)}
    predicted = run.target("phone").predictor()(space.rows(new))
    drop = precision_drop(run, accuracies, precision)(space.rows(new))
    lines = []
    for one, values in (("float32", predicted), (precision, predicted - drop)):
        actual = np.array([measured[one][arch].top1_percent for arch in new])
        errors = np.abs(values - actual)
        tau = float(kendalltau(values, actual).statistic)
        lines.append(f"{one} | {tau:.3f} | {errors.mean():.2f} | {np.sqrt((errors**2).mean()):.2f}")
    drops = np.array([measured["float32"][arch].top1_percent - measured[precision][arch].top1_percent for arch in new])
    return [
        "## Predicted accuracy in int8",
        f"{len(new)} random archs that no search had measured, on the validation images; the predictor and the drop "
        f"were learned from {len(accuracies['float32'])} archs in float32, {len(accuracies[precision])} in int8. "
        f"They lose {drops.mean():.2f} points on average ({drops.std():.2f} standard deviation), predicted "
        f"{drop.mean():.2f}; the error of the predicted drop is {np.abs(drop - drops).mean():.2f} on average.",
        table("precision | Kendall tau | mean error, points | RMSE, points", lines),
    ]


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/fleet"))
