"""`kill -9` at random moments of `ofa train`."""

import hashlib
import os
import subprocess
import sys
import time

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


def start(recipe, folder):
    command = [sys.executable, "-m", "ofa", "train", str(recipe), "--run", str(folder)]
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
