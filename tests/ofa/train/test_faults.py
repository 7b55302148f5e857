"""`kill -9` at random moments of `ofa train`."""

import hashlib
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
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


@pytest.fixture
def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def start(recipe, folder, *launcher):
    command = [sys.executable, *launcher, "-m", "ofa", "train", str(recipe), "--run-dir", str(folder)]
    with folder.with_suffix(".log").open("ab") as log:
        return subprocess.Popen(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=log, stderr=log)


def trained(folder):
    names = ("supernet.safetensors", "train.jsonl")
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}


def checkpoints(folder):
    return {path.name for path in (folder / "checkpoints").glob("step-*")}


def wait_for_progress(process, folder, steps):
    """Until some checkpoints more are there, or it ends."""
    before, begin = checkpoints(folder), time.monotonic()
    seen = set(before)
    while process.poll() is None and len(seen - before) < steps:
        assert time.monotonic() - begin < 120, folder.with_suffix(".log").read_text()[-3000:]
        seen |= checkpoints(folder)
        time.sleep(0.005)


@pytest.mark.slow
def test_a_training_killed_twenty_times_ends_as_if_it_never_was(recipe, tmp_path):
    whole, folder, rng = tmp_path / "whole", tmp_path / "run", np.random.default_rng(1)
    assert start(recipe, whole).wait(timeout=600) == 0, whole.with_suffix(".log").read_text()[-3000:]
    for _ in range(N_KILLS):
        process = start(recipe, folder)
        wait_for_progress(process, folder, steps=int(rng.integers(1, 6)))
        time.sleep(float(rng.uniform(0, 0.2)))
        assert process.poll() is None, "it was done before it was killed often enough"
        process.kill()
        process.wait()
    assert start(recipe, folder).wait(timeout=600) == 0, folder.with_suffix(".log").read_text()[-3000:]
    assert trained(folder) == trained(whole)


def children(process):
    listed = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
    return sorted(int(pid) for pid in listed.split())


def kill_one(process, rng):
    """Kills one of torchrun's processes, and waits until it has started others."""
    before, begin = children(process), time.monotonic()
    os.kill(int(rng.choice(before)), signal.SIGKILL)
    while process.poll() is None and (len(children(process)) < len(before) or set(children(process)) & set(before)):
        assert time.monotonic() - begin < 60
        time.sleep(0.05)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds the processes by Linux's /proc")
def test_a_process_of_two_killed_twenty_times_is_started_again_by_torchrun(recipe, tmp_path, free_port):
    launcher = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(free_port))
    whole, folder, rng = tmp_path / "whole", tmp_path / "run", np.random.default_rng(2)
    assert start(recipe, whole, *launcher).wait(timeout=600) == 0, whole.with_suffix(".log").read_text()[-3000:]
    process = start(recipe, folder, *launcher, "--max-restarts", str(N_KILLS))
    for _ in range(N_KILLS):
        wait_for_progress(process, folder, steps=int(rng.integers(1, 6)))
        time.sleep(float(rng.uniform(0, 0.2)))
        assert process.poll() is None, folder.with_suffix(".log").read_text()[-3000:]
        kill_one(process, rng)
    assert process.wait(timeout=600) == 0, folder.with_suffix(".log").read_text()[-3000:]
    assert trained(folder) == trained(whole)
