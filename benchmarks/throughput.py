"""Time training steps: `python -m benchmarks.throughput [ROUNDS]` writes docs/results/throughput.md.

A sandwich step is timed against the steps of the same four networks as static ones, and against the same sandwich step
of once-for-all, the PyPI package `ofa`. As that package shares this project's name, each has a process of its own; this
one asks them in turn, so that one computes at a time, and first checks that they train the same network.
"""

import json
import subprocess
import sys
import tempfile
import venv
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.page import median_range, table, write_page
from benchmarks.throughput_ours import FAMILY
from benchmarks.throughput_peer import SGD
from ofa import Arch, create_family

PEER = "ofa==0.1.0.post202307202001"
VENV = Path(".cache/throughput-venv")
BATCH, PIXELS, RANDOM, SANDWICHES, ROUNDS = 16, 128, 2, 3, 10
TOLERANCE = 1e-3
"""Largest difference of logits, relative to the largest one, and relative difference of losses."""

SHARED = "shared"
OURS = {SHARED: "this project, sandwich", "compiled": "this project, ends compiled", "static": "the same four, static"}
PEERS = {"contiguous": "once-for-all, as published", "channels last": "once-for-all, channels last"}
CONTENDERS = OURS | PEERS

Workers = dict[str, subprocess.Popen[str]]
"""The worker of each contender."""
Timings = dict[str, NDArray[np.float64]]
"""Seconds of each step of a contender, and of its zeroing and SGD, `[rounds * sandwiches, 2]`."""


def main(rounds: int = ROUNDS) -> None:
    space, rng = create_family(FAMILY, resolutions=(PIXELS,)).space, np.random.default_rng(0)
    ends, threads = (space.largest, space.smallest), torch.get_num_threads()
    sandwiches = [[*ends, *map(space.decode, space.sample(RANDOM, rng))] for _ in range(SANDWICHES)]
    with (
        tempfile.TemporaryDirectory() as folder,
        started(str(peer_python()), "-I", str(Path(__file__).with_name("throughput_peer.py"))) as peer,
        started(sys.executable, "-m", "benchmarks.throughput_ours") as ours,
    ):
        described = [[official_description(arch) for arch in archs] for archs in sandwiches]
        settings = {"sandwiches": described, "batch": BATCH, "pixels": PIXELS, "threads": threads}
        settings["weights"] = str(Path(folder, "weights.pt"))
        n_parameters = ask(peer, settings) | ask(ours, settings)  # the peer first, as it writes the weights
        workers = dict.fromkeys(OURS, ours) | dict.fromkeys(PEERS, peer)
        equality = check(workers, n_parameters)
        measure(workers, 1)  # warms up
        timings = measure(workers, rounds)
    write_page("throughput", introduction(timings, rounds, threads), timing_table(timings), NOTES, equality)


def introduction(timings: Timings, rounds: int, threads: int) -> str:
    published, channels_last = (np.median(timings[peer][:, 0] / timings[SHARED][:, 0]) for peer in PEERS)
    return f"""
# Training throughput, compared with once-for-all

A training step of this project is {published:.1f} times as fast as one of once-for-all's package as published, and
{channels_last:.1f} times as fast as one with that package's networks in channels-last layout.

Made by `python -m benchmarks.throughput`: {rounds} rounds over {SANDWICHES} sandwiches (the largest, the smallest and
{RANDOM} random archs) of `{FAMILY}`, width 1.0, at {PIXELS} pixels, batch {BATCH}, float32, {threads} threads.
A step runs each of the four networks forward and backward on one batch, then takes one SGD step
({", ".join(f"{name}={value}" for name, value in SGD.items())}). Data loading and distillation are left out. An image
counts once per step, not once per network. The contenders take turns; one computes at a time. Numbers are medians with
the 10th and 90th percentiles. A ratio divides a contender's seconds by this project's in the same round and sandwich:
how many times as fast this project is.
"""


NOTES = f"""
- *This project*: channels last, its default for training, and learned kernel transforms.
- *Ends compiled*: `torch.compile` of the largest and the smallest network, as with `train.compile: true`; it takes a
  minute or two once.
- *The same four, static*: each extracted, channels last, with its own weights and optimizer; the sum of their steps,
  thus four SGD steps.
- *once-for-all*: `pip install {PEER}`, its `OFAMobileNetV3` with `KERNEL_TRANSFORM_MODE = 1`, in
  the same Python and torch. Its training keeps torch's contiguous layout; channels last is a change to it.
"""


def timing_table(timings: Timings) -> str:
    our_seconds, our_update_seconds = timings[SHARED].T
    rows = []
    for contender, name in CONTENDERS.items():
        seconds, update_seconds = timings[contender].T
        ratios = seconds / our_seconds, (seconds - update_seconds) / (our_seconds - our_update_seconds)
        step, passes = ("1", "1") if contender == SHARED else (median_range(ratio, ".3f") for ratio in ratios)
        rows.append(
            f"{name} | {median_range(BATCH / seconds, '.1f')} | {median_range(1e3 * seconds, '.0f')} "
            f"| {1e3 * np.median(update_seconds):.1f} | {step} | {passes}"
        )
    return table("step | images/s | ms | of which zeroing and SGD, ms | ratio | without zeroing and SGD", rows)


def check(workers: Workers, n_parameters: dict[str, int]) -> str:
    """Return how equal the contenders are, or raise RuntimeError if they do not train the same network."""
    if len({n_parameters[contender] for contender in (SHARED, *PEERS)}) > 1:
        raise RuntimeError(f"the networks differ in their number of parameters: {n_parameters}")
    logits_differences, loss_differences = [], []
    for i in range(SANDWICHES):
        logits = {contender: request(workers, contender, "logits", sandwich=i)["logits"] for contender in CONTENDERS}
        expected, scale = np.array(logits[SHARED]), np.abs(logits[SHARED]).max()
        logits_differences += [np.abs(values - expected).max() / scale for values in logits.values()]
    for i in (0, 1):  # one SGD step apart; later, rounding errors grow
        losses = {it: request(workers, it, "step", sandwich=i)["losses"] for it in (SHARED, *PEERS)}
        loss_differences += [np.abs(np.divide(losses[peer], losses[SHARED]) - 1).max() for peer in PEERS]
    worst = np.array([np.max(logits_differences), np.max(loss_differences)])
    if not (worst < TOLERANCE).all():
        raise RuntimeError(f"the networks differ: logits and losses by {worst}, not by less than {TOLERANCE}")
    return f"""
All start from the same weights ({n_parameters[SHARED]:,} parameters, imported by `ofa.import_checkpoint`) and see the
same images. Before the timing, the logits of the {SANDWICHES * (2 + RANDOM)} subnets, in training mode, differed by at
most {worst[0]:.1e} of the largest one; the losses of once-for-all's subnets, before and after one SGD step, differed
from this project's by at most {worst[1]:.1e} of themselves.
"""


def measure(workers: Workers, rounds: int) -> Timings:
    """Time the steps of all contenders in turn, or raise RuntimeError if a loss is not finite."""
    turns = list(workers)
    timings: dict[str, list[tuple[float, float]]] = {contender: [] for contender in turns}
    for _ in range(rounds):
        for i in range(SANDWICHES):
            for contender in turns:
                answer = request(workers, contender, "step", sandwich=i)
                if not np.isfinite(answer["losses"]).all():
                    raise RuntimeError(f"losses of {contender!r} are not finite: {answer['losses']}; its time is void")
                timings[contender].append((answer["seconds"], answer["update_seconds"]))
            turns = [*turns[1:], turns[0]]  # each is first equally often
    return {contender: np.array(seconds) for contender, seconds in timings.items()}


def started(*command: str) -> subprocess.Popen[str]:
    """Start a worker; used as a context, it closes the worker's input at the end, which makes the worker end."""
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def request(workers: Workers, contender: str, action: str, *, sandwich: int) -> dict[str, Any]:
    """Return a contender's answer to a request; see `benchmarks.throughput_peer.serve`."""
    return ask(workers[contender], {"contender": contender, "action": action, "sandwich": sandwich})


def ask(worker: subprocess.Popen[str], message: dict[str, Any]) -> dict[str, Any]:
    """Send a worker one line of JSON and return its answer, or raise RuntimeError if the worker ended."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    with suppress(BrokenPipeError):
        worker.stdin.write(json.dumps(message) + "\n")
        worker.stdin.flush()
    line = worker.stdout.readline()
    if not line:
        raise RuntimeError(f"the worker {worker.args!r} ended; see its error above")
    answer: dict[str, Any] = json.loads(line)
    return answer


def peer_python() -> Path:
    """Return a Python with the peer's package and this environment's torch; creates the environment on first use."""
    python, packages = VENV / "bin/python", Path(torch.__file__).parents[1]
    ready, content = VENV / "ready", f"{PEER}\n{packages}\n"
    if not ready.exists() or ready.read_text() != content:
        venv.create(VENV, clear=True)
        # Install before adding this environment's packages: pip would take this project's `ofa` for an older version.
        pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", PEER]
        subprocess.run(pip, check=True)
        site_packages = next(VENV.glob("lib/python*/site-packages"))
        (site_packages / "torch.pth").write_text(f"{packages}\n")
        ready.write_text(content)
    return python


def official_description(arch: Arch) -> dict[str, Any]:
    """Return the arguments of once-for-all's `set_active_subnet` for an arch."""
    blocks = [f"stage{stage}.block{block}" for stage in range(5) for block in range(4)]
    return {
        "ks": [arch.get(f"{block}.kernel", 7) for block in blocks],  # any value will do for skipped blocks
        "e": [arch.get(f"{block}.expand", 6) for block in blocks],
        "d": [arch[f"stage{stage}.depth"] for stage in range(5)],
    }


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
