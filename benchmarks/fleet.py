"""Check a fleet run by plain runtimes: `python -m benchmarks.fleet [RUN_DIR]` writes docs/results/fleet.md.

Runs the recipe `fleet`, or resumes the run, adds a fifth target, and then knows nothing of this project but the files:
each level is loaded by its runtime alone, scored on the test images, weighed and timed. At last, the predicted accuracy
in int8 is compared with that of networks that were never quantized before.
"""

import hashlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime as ort
import openvino
from numpy.typing import NDArray

import ofa
from benchmarks.int8_predictions import int8_predictions
from benchmarks.page import table, write_page
from export.preprocess import Preprocess
from ofa.cost.latency.profile import reference
from ofa.pipeline.compare import mean_loss, read_comparison
from ofa.pipeline.levels import Level
from ofa.pipeline.run import Run
from ofa.pipeline.target import Target

PASSES, ROUNDS, BURST_MS = 20, 50, 3.0
SHARED = ("supernet.safetensors", "samples.json", "predictor.safetensors")
FIFTH = ("--name", "fifth", "--batch", "4", "--limit", "size_mib=0.5", "--limit", "macs_m=0.5,size_mib=0.4")
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
    before = hashes(folder)
    if any(target.name == FIFTH[1] for target in ofa.open_run(folder).targets):
        _ofa("targets", folder, "--remove", FIFTH[1])  # so that its time is measured
    start = time.monotonic()
    _ofa("specialize", folder, *FIFTH)
    seconds = time.monotonic() - start
    assert hashes(folder) == before, "specialize changed what the targets share"
    run = ofa.open_run(folder)
    write_page(
        "fleet",
        INTRODUCTION,
        *_times(run, seconds),
        *_levels(run),
        *_comparison(run),
        *int8_predictions(run, run.target("phone")),
    )


def _ofa(*arguments: object) -> None:
    subprocess.run([sys.executable, "-m", "ofa", *map(str, arguments)], check=True)


def hashes(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of each file of a run that its targets share."""
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


class _Setup(NamedTuple):
    """What levels that are timed together have in common."""

    device: str
    threads: int
    batch: int
    precision: str


class _Check(NamedTuple):
    """A level, its test accuracy in percent by the script, and the function that runs its file on a batch."""

    target: Target
    number: int
    level: Level
    top1_percent: float
    run_once: Callable[[], object]


def _levels(run: Run) -> list[str]:
    images = np.stack([run.data.test[i][0].numpy() for i in range(len(run.data.test))])
    labels = np.array([run.data.test[i][1] for i in range(len(run.data.test))])
    checks: dict[_Setup, list[_Check]] = {}
    for target in run.targets:
        for number, level in enumerate(target.levels):
            path, device = target.folder / level.file, target.latency_table(level.precision).device
            setup = _Setup(device["device"], int(device["threads"]), level.batch, level.precision)
            runner = (_by_openvino if setup.device == "openvino-cpu" else _by_onnxruntime)(path, setup.threads)
            batches = _preprocess(run, images, int(level.arch["resolution"]))
            pairs = zip(batches, _split(labels), strict=True)
            accuracy = 100 * sum(int((runner(x).argmax(axis=1) == y).sum()) for x, y in pairs) / len(labels)
            assert abs(accuracy - level.top1_percent) < 1e-9, (path, accuracy, level.top1_percent)
            assert path.stat().st_size == level.bytes
            _check_precision(path, level.precision)
            batch = np.ascontiguousarray(batches[0][: level.batch])
            checks.setdefault(setup, []).append(
                _Check(target, number, level, accuracy, _run_once(path, setup.device, setup.threads, batch))
            )
    rows, differences, repeats = [], [], []
    for setup, latencies_ms in _latencies_ms(run, checks).items():
        for check, (latency_ms, *halves_ms) in zip(checks[setup], latencies_ms, strict=True):
            level = check.level
            repeats.append(100 * abs(halves_ms[0] / halves_ms[1] - 1))
            differences.append(100 * (latency_ms / level.latency_ms - 1))
            rows.append(
                f"{check.target.name} | {check.number} | {level.precision} | {level.batch} | {level.size_mib:.3f} | "
                f"{level.top1_percent:.2f} | {check.top1_percent:.2f} | {level.accuracy_drop_percent:+.2f} | "
                f"{level.latency_ms:.4f} | {latency_ms:.4f} | {differences[-1]:+.1f}"
            )
    header = (
        "target | level | precision | batch | MiB | test top-1 % | by the script | drop | latency ms | by the script "
        "| difference %"
    )
    return [
        "## Every level, by its runtime alone",
        "The script finds the precision in the file (QuantizeLinear, float16 tensors), its size, its accuracy to the "
        f"last image, and its latency: the fastest eighth of {PASSES * ROUNDS} bursts, in turns with the target's "
        "reference network. This computer changes its speed within minutes, so the bursts are spread over a minute or "
        "two, and latencies are given at the speed at which the reference ran, undisturbed, when the latency table was "
        "measured. "
        f"Latencies differ by {np.mean(np.abs(differences)):.1f}% on average, "
        f"{np.max(np.abs(differences)):.1f}% at most; two halves of the script's own bursts by {np.mean(repeats):.1f}% "
        f"and {np.max(repeats):.1f}%.",
        table(header, rows),
    ]


def _latencies_ms(run: Run, checks: Mapping[_Setup, list[_Check]]) -> dict[_Setup, Floats]:
    """Time the levels of each setup in turns with its reference network, and give latencies at its speed in each table.

    This computer's moods last for minutes, so the setups take turns as well. The columns of each `[levels, 3]` are the
    latencies from all passes, from every other pass, and from the rest.
    """
    functions = {
        setup: [_reference(run, setup, of_setup[0].target), *(check.run_once for check in of_setup)]
        for setup, of_setup in checks.items()
    }
    bursts_ms: dict[_Setup, list[Floats]] = {setup: [] for setup in checks}
    for _ in range(PASSES):
        for setup, of_setup in functions.items():
            bursts_ms[setup].append(_bursts_ms(of_setup))
    latencies_ms = {}
    for setup, passes in bursts_ms.items():
        speeds = np.array(
            [[check.target.latency_table(setup.precision).device["reference_ms"]] for check in checks[setup]]
        )
        latencies_ms[setup] = speeds * np.stack([_ratios(part) for part in (passes, passes[::2], passes[1::2])], axis=1)
    return latencies_ms


def _ratios(passes: Sequence[Floats]) -> Floats:
    """Return latencies relative to the first column's, each the median of the fastest eighth of its bursts."""
    bursts_ms = np.concatenate(passes)
    medians_ms = np.median(np.sort(bursts_ms, axis=0)[: len(bursts_ms) // 8], axis=0)
    ratios: Floats = medians_ms[1:] / medians_ms[0]
    return ratios


def _reference(run: Run, setup: _Setup, target: Target) -> Callable[[], object]:
    """Return the function that runs the family's reference network as a setup does."""
    model = reference(run.family)
    x = np.random.default_rng(0).standard_normal((setup.batch, *model.input_shape), dtype=np.float32)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "reference.onnx"
        images = x.repeat(8, axis=0)
        target.format.write(
            model.module(), model.input_shape, path, precision=setup.precision, images=images, metadata={}
        )
        return _run_once(path, setup.device, setup.threads, x)


def _preprocess(run: Run, images: NDArray[np.uint8], side: int) -> list[NDArray[np.float32]]:
    data = run.data
    preprocess = Preprocess(side, data.in_channels, tuple(data.mean), tuple(data.std))
    return [preprocess(part[:, 0]) for part in _split(images)]


def _split(values: NDArray[Any]) -> list[NDArray[Any]]:
    return [values[start : start + 64] for start in range(0, len(values), 64)]


def _by_onnxruntime(path: Path, threads: int) -> Any:
    session = _session(path, threads)
    return lambda x: session.run(None, {"images": x})[0]


def _by_openvino(path: Path, threads: int) -> Any:
    requests: dict[tuple[int, ...], Any] = {}

    def run(x: NDArray[np.float32]) -> NDArray[np.float32]:
        if x.shape not in requests:
            requests[x.shape] = _request(path, threads, x.shape)
        return np.array(next(iter(requests[x.shape].infer({0: x}, share_inputs=True).values())))

    return run


def _run_once(path: Path, device: str, threads: int, x: NDArray[np.float32]) -> Callable[[], object]:
    """Return the function that runs a file on one batch, without copies, to be timed."""
    if device == "openvino-cpu":
        request = _request(path, threads, x.shape)
        request.set_input_tensor(openvino.Tensor(x))
        return partial(request.infer, share_outputs=True)
    return partial(_session(path, threads).run, None, {"images": x})


def _session(path: Path, threads: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.force_spinning_stop", "1")  # a spinning thread disturbs what runs next
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def _request(path: Path, threads: int, shape: tuple[int, ...]) -> Any:
    core = openvino.Core()
    model = core.read_model(path)
    model.reshape(list(shape))
    options = {
        "PERFORMANCE_HINT": "THROUGHPUT",
        "NUM_STREAMS": "1",
        "INFERENCE_NUM_THREADS": threads,
        "INFERENCE_PRECISION_HINT": "f32",
    }
    return core.compile_model(model, "CPU", options).create_infer_request()


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


def _bursts_ms(functions: Sequence[Callable[[], object]]) -> Floats:
    """Return the bursts `[ROUNDS, n]` of functions that are run in turns."""
    n_runs = [max(1, round(BURST_MS / _burst_ms(function, 5))) for function in functions]
    return np.array([[_burst_ms(*pair) for pair in zip(functions, n_runs, strict=True)] for _ in range(ROUNDS)])


def _burst_ms(function: Callable[[], object], n_runs: int) -> float:
    times = []
    function()  # not timed, fills the processor's caches
    for _ in range(n_runs):
        start = time.perf_counter()
        function()
        times.append(1e3 * (time.perf_counter() - start))
    return float(np.median(times))


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


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/fleet"))
