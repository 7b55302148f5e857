"""Images per second of training: `python -m benchmarks.throughput [ROUNDS]` writes docs/results/throughput.md.

A sandwich step (the largest, the smallest and two random subnets; forward and backward of each; one SGD step) is timed
against the steps of the same four networks as static ones, and against the same sandwich step of the PyPI package `ofa`
(once-for-all, MIT Han lab). As both packages are called `ofa`, each has a process of its own; this one asks
them in turn, so that one computes at a time. That they train the same network is checked first.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from benchmarks.machine import machine
from benchmarks.throughput_peer import SGD, Contender, Trainer, Update
from ofa import Arch, create_family, import_checkpoint
from supernets.checkpoints import once_for_all

RESULT = Path("docs/results/throughput.md")
PEER = "ofa==0.1.0.post202307202001"
VENV = Path(".cache/throughput-venv")
FAMILY, BATCH, PIXELS, RANDOM = "ofa_mobilenet_v3", 16, 128, 2
SANDWICHES, ROUNDS = 3, 10
OUR_WORKER = "from benchmarks import throughput, throughput_peer; throughput_peer.serve(throughput.this_project)"
ALIKE = 1e-3
"""How far logits may differ, as a share of the largest, and losses, as a share of themselves."""
OURS = ("ours", "shared"), ("ours", "compiled"), ("ours", "static")
THEIRS = ("peer", "contiguous"), ("peer", "channels last")


def main(rounds: int = ROUNDS) -> None:
    threads = torch.get_num_threads()
    made = create_family(FAMILY, resolutions=(PIXELS,))
    rng = np.random.default_rng(0)
    ends = made.space.largest, made.space.smallest
    archs = [[*ends, *map(made.space.decode, made.space.sample(RANDOM, rng))] for _ in range(SANDWICHES)]
    with ExitStack() as stack:
        settings = {
            "sandwiches": [[description(arch) for arch in four] for four in archs],
            "batch": BATCH,
            "pixels": PIXELS,
            "threads": threads,
            "weights": str(Path(stack.enter_context(tempfile.TemporaryDirectory())) / "weights.pt"),
        }
        commands = {
            "peer": [str(peer_python()), "-I", str(Path(__file__).with_name("throughput_peer.py"))],
            "ours": [sys.executable, "-c", OUR_WORKER],
        }
        workers = {name: stack.enter_context(worker(command)) for name, command in commands.items()}
        parameters = {name: ask(process, settings) for name, process in workers.items()}  # the peer first: the weights
        checked = check(workers, parameters)
        measure(workers, 1)  # warms up
        timings = measure(workers, rounds)
    lines = [
        "# Training steps against once-for-all's",
        "",
        f"Made by `python -m benchmarks.throughput`: {rounds} rounds over {SANDWICHES} sandwiches (the largest, the "
        f"smallest and {RANDOM} random",
        f"archs) of `{FAMILY}`, width 1.0, at {PIXELS} pixels, batch {BATCH}, {threads} "
        f"thread{'s' if threads > 1 else ''}, float32. A step sets each of",
        "the four networks and runs it forward and backward on one batch, then makes one SGD step; data loading and",
        f"distillation are left out. SGD has {', '.join(f'{name}={value}' for name, value in SGD.items())}.",
        "Images per second count an image once, not once per network. The contenders take turns; one computes at a",
        "time. Medians, with the 10th and 90th percentile. A ratio is a contender's seconds over this project's in the",
        "same round and sandwich: how many times as fast this project is.",
        "",
        f"Machine: {machine()}.",
        "",
        *table(timings),
        "",
        "- this project: channels last, its default for training, and learned kernel transforms.",
        "- ends compiled: the largest and the smallest network by `torch.compile`, as with `train.compile: true`; it",
        "  takes a minute or two once.",
        "- the same four, static: each extracted, channels last, with weights and an optimizer of its own; the sum of "
        "their",
        "  steps, so four SGD steps.",
        f"- once-for-all: `pip install {PEER}`, its `OFAMobileNetV3` with `KERNEL_TRANSFORM_MODE = 1`, in",
        "  the same Python and torch. Its training keeps torch's contiguous layout; channels last is a change to it.",
        "",
        *checked,
    ]
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


def table(timings: dict[tuple[str, str], np.ndarray]) -> list[str]:
    """The lines of a Markdown table of `measure`'s result."""
    names = {
        ("ours", "shared"): "this project, sandwich",
        ("ours", "compiled"): "this project, ends compiled",
        ("ours", "static"): "the same four, static",
        ("peer", "contiguous"): "once-for-all, as published",
        ("peer", "channels last"): "once-for-all, channels last",
    }
    lines = [
        "| step | images/s | ms | of that zeroing and SGD, ms | ratio | without zeroing and SGD |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    own, own_updating = timings[OURS[0]].T
    for contender, name in names.items():
        seconds, updating = timings[contender].T
        ratios = seconds / own, (seconds - updating) / (own - own_updating)
        step, passes = ("1", "1") if contender == OURS[0] else (spread(ratio, ".3f") for ratio in ratios)
        lines.append(
            f"| {name} | {spread(BATCH / seconds, '.1f')} | {spread(1e3 * seconds, '.0f')} "
            f"| {1e3 * np.median(updating):.1f} | {step} | {passes} |"
        )
    return lines


def spread(values: np.ndarray, form: str) -> str:
    """The median, and in brackets the 10th and 90th percentile."""
    low, middle, high = np.percentile(values, (10, 50, 90))
    return f"{middle:{form}} ({low:{form}} to {high:{form}})"


def check(workers: dict[str, subprocess.Popen[str]], parameters: dict[str, dict[str, int]]) -> list[str]:
    """Says how equal they are, and to what extent they stay so when trained.

    Raises:
        RuntimeError: they do not train the same network.
    """
    ours, count = OURS[0], parameters["ours"]["shared"]
    if any(parameters[who][how] != count for who, how in THEIRS):
        raise RuntimeError(f"the networks differ in their number of parameters: {parameters}")
    apart, trained_apart = [], []
    for i in range(SANDWICHES):
        logits = {who: np.array(ask_for(workers, "logits", who, i)["logits"]) for who in (*OURS, *THEIRS)}
        apart += [np.abs(logits[who] - logits[ours]).max() / np.abs(logits[ours]).max() for who in logits]
    for i in (0, 1):  # one SGD step apart; later, differences of rounding grow
        losses = {who: np.array(ask_for(workers, "step", who, i)["losses"]) for who in (ours, *THEIRS)}
        trained_apart += [np.abs(losses[who] / losses[ours] - 1).max() for who in losses]
    worst, trained_worst = np.max(apart), np.max(trained_apart)
    if not (worst < ALIKE and trained_worst < ALIKE):
        raise RuntimeError(f"the networks differ: logits by {worst:.1e}, losses by {trained_worst:.1e}, not {ALIKE}")
    return [
        f"All start from the same weights ({count:,} parameters, brought over by `ofa.import_checkpoint`) and see the "
        "same images.",
        f"Before the timing, the logits of the {SANDWICHES * (2 + RANDOM)} subnets, in training mode, differed by at "
        f"most {worst:.1e} of the largest, and the losses",
        f"of once-for-all's subnets from this project's, before and after one SGD step, by at most {trained_worst:.1e} "
        "of themselves.",
    ]


def measure(workers: dict[str, subprocess.Popen[str]], rounds: int) -> dict[tuple[str, str], np.ndarray]:
    """Seconds of each step, and of its zeroing and SGD, `[rounds * sandwiches, 2]` for each contender.

    Raises:
        RuntimeError: a loss is not finite.
    """
    turns = [*OURS, *THEIRS]
    timings: dict[tuple[str, str], list[tuple[float, float]]] = {who: [] for who in turns}
    for _ in range(rounds):
        for i in range(SANDWICHES):
            for who in turns:
                answer = ask_for(workers, "step", who, i)
                if not np.isfinite(answer["losses"]).all():
                    raise RuntimeError(f"the losses of {who} are {answer['losses']}: such a step's time says nothing")
                timings[who].append((answer["seconds"], answer["updating_seconds"]))
            turns = [*turns[1:], turns[0]]  # each is first as often
    return {who: np.array(seconds) for who, seconds in timings.items()}


def ask_for(workers: dict[str, subprocess.Popen[str]], do: str, who: tuple[str, str], i: int) -> dict[str, Any]:
    name, contender = who
    return ask(workers[name], {"do": do, "contender": contender, "sandwich": i})


def ask(process: subprocess.Popen[str], request: dict[str, Any]) -> dict[str, Any]:
    assert process.stdin is not None
    assert process.stdout is not None
    with suppress(BrokenPipeError):
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"the worker {process.args!r} ended; see its error above")
    answer: dict[str, Any] = json.loads(line)
    return answer


@contextmanager
def worker(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.communicate()  # closes its input, on which it ends


def peer_python() -> Path:
    """A Python that has the peer's package and this environment's torch, made if it is not there."""
    python, packages = VENV / "bin/python", Path(torch.__file__).parents[1]
    said = f"{PEER}\n{packages}\n"
    ready = VENV / "ready"
    if not ready.exists() or ready.read_text() != said:
        venv.create(VENV, clear=True)
        # Before it can see this environment's packages: this project's `ofa` would count as an older one to replace.
        pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", PEER]
        subprocess.run(pip, check=True)
        own = next(VENV.glob("lib/python*/site-packages"))
        (own / "torch.pth").write_text(f"{packages}\n")
        ready.write_text(said)
    return python


def description(arch: Arch) -> dict[str, Any]:
    """The official description of an arch, as `set_active_subnet` takes it."""
    blocks = [f"stage{stage}.block{block}" for stage in range(5) for block in range(4)]
    return {
        "ks": [arch.get(f"{block}.kernel", 7) for block in blocks],  # of skipped blocks any value will do
        "e": [arch.get(f"{block}.expand", 6) for block in blocks],
        "d": [arch[f"stage{stage}.depth"] for stage in range(5)],
    }


def this_project(settings: dict[str, Any]) -> dict[str, Contender]:
    """The supernet with the peer's weights, and static networks extracted from it; channels last."""
    made = create_family(FAMILY, resolutions=(settings["pixels"],), dropout=0.0)
    supernet = import_checkpoint("once-for-all", settings["weights"], made).to(memory_format=torch.channels_last)
    trainer = Trainer(supernet)

    def shared(archs: list[Arch]) -> Update:
        return trainer, lambda: (supernet.subnet(arch) for arch in archs)

    other = import_checkpoint("once-for-all", settings["weights"], made).to(memory_format=torch.channels_last)
    of_compiled = Trainer(other)
    space = made.space
    ends: dict[Arch, Any] = {
        arch: torch.compile(other.train().subnet(arch)) for arch in (space.largest, space.smallest)
    }

    def compiled(archs: list[Arch]) -> Update:
        return of_compiled, lambda: (ends[arch] if arch in ends else other.subnet(arch) for arch in archs)

    def static(arch: Arch) -> Update:
        network: nn.Module = supernet.extract(arch).to(memory_format=torch.channels_last)
        return Trainer(network), lambda: [network]

    sandwiches = [[once_for_all.arch(made, it) for it in four] for four in settings["sandwiches"]]
    return {
        "shared": Contender(torch.channels_last, [[shared(archs)] for archs in sandwiches]),
        "compiled": Contender(torch.channels_last, [[compiled(archs)] for archs in sandwiches]),
        "static": Contender(torch.channels_last, [[static(arch) for arch in archs] for archs in sandwiches]),
    }


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
