"""`kill -9` at random moments of `ofa train`, of a single process and of one of two that torchrun restarts."""

import hashlib
import os
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
import yaml

N_KILLS = 20


@pytest.fixture
def recipe(tiny_recipe_text, tmp_path):
    content = yaml.safe_load(tiny_recipe_text)
    content["train"]["checkpoint_seconds"] = 0.0  # after every step
    content["train"]["phases"] = [
        {"strategy": "full", "epochs": 1},
        {"strategy": "uniform", "epochs": 2, "subnets": 2, "sort_channels": True},
        {"strategy": "sandwich", "epochs": 30, "random": 1},
    ]
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def start(recipe, folder, n):
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={n}", f"--max-restarts={2 * N_KILLS}"]
    command = [sys.executable, *(torchrun if n > 1 else []), "-m", "ofa", "train", str(recipe), "--run", str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with (folder.parent / f"{folder.name}.log").open("ab") as log:
        return subprocess.Popen(command, env=environment, stdout=log, stderr=log)


def trained(folder):
    return {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in ("supernet.safetensors", "train.jsonl")
    }


def checkpoints(folder):
    return {path.name for path in (folder / "checkpoints").glob("step-*")}


def wait_for_progress(process, folder, before, steps):
    """Until some checkpoints more are there, or it ends."""
    seen = set(before)
    while process.poll() is None and len(seen - before) < steps:
        seen |= checkpoints(folder)
        time.sleep(0.005)


@pytest.mark.slow
@pytest.mark.parametrize("n", [1, 2])
def test_a_training_killed_twenty_times_ends_as_if_it_never_was(recipe, tmp_path, n):
    whole = start(recipe, tmp_path / "whole", n)
    assert whole.wait(timeout=600) == 0, (tmp_path / "whole.log").read_text()[-3000:]
    folder, rng, killed = tmp_path / "run", np.random.default_rng(n), 0
    process = start(recipe, folder, n)
    while killed < N_KILLS:
        wait_for_progress(process, folder, checkpoints(folder), steps=int(rng.integers(1, 6)))
        time.sleep(float(rng.uniform(0, 0.2)))
        assert process.poll() is None, "it was done before it was killed often enough"
        victims = psutil.Process(process.pid).children() if n > 1 else [psutil.Process(process.pid)]
        if len(victims) < n:
            continue  # torchrun is starting them
        victims[int(rng.integers(n))].send_signal(signal.SIGKILL)
        killed += 1
        if n == 1:
            process.wait()
            process = start(recipe, folder, n)
        else:
            time.sleep(1.0)
    assert process.wait(timeout=600) == 0, (tmp_path / "run.log").read_text()[-3000:]
    assert trained(folder) == trained(tmp_path / "whole")
