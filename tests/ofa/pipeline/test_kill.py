"""`kill -9` at random moments of `ofa run`, each followed by `ofa run --resume`."""

import hashlib
import subprocess
import sys
import time

import numpy as np
import pytest
import yaml

N_KILLS = 10


def start(recipe, folder, *options):
    arguments = [sys.executable, "-m", "ofa", "run", recipe, "--run", folder, "--json", *options]
    return subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def results(folder):
    """What does not hang on measured latencies: weights and sampled accuracies."""
    names = ("supernet.safetensors", "train.jsonl", "samples.json", "predictor.safetensors")
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}


@pytest.mark.slow
def test_a_run_killed_at_random_moments_ends_as_if_it_never_was(tiny_recipe_text, tmp_path):
    content = yaml.safe_load(tiny_recipe_text)
    content["train"]["checkpoint_seconds"] = 0.0  # after every step
    content["train"]["phases"] = [
        {"strategy": "full", "epochs": 2},
        {"strategy": "sandwich", "epochs": 6, "random": 2},
    ]
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(yaml.safe_dump(content))
    begin = time.monotonic()
    undisturbed = start(recipe, tmp_path / "undisturbed")
    assert undisturbed.wait() == 0, undisturbed.stderr.read()
    duration = time.monotonic() - begin
    expected = results(tmp_path / "undisturbed")

    rng = np.random.default_rng(0)
    killed = 0
    for attempt in range(3 * N_KILLS):
        folder = tmp_path / f"run-{attempt}"
        process = start(recipe, folder)
        try:
            process.wait(timeout=float(rng.uniform(0.05, 0.95)) * duration)
            continue  # it was faster than the moment to kill it
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            killed += 1
        resumed = start(recipe, folder, "--resume")
        _, said = resumed.communicate()
        assert resumed.returncode == 0, said
        assert results(folder) == expected
        if killed == N_KILLS:
            break
    assert killed == N_KILLS
