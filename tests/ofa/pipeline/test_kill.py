"""`kill -9` at random moments of `ofa run`, each followed by `ofa run --resume`."""

import hashlib
import json
import subprocess
import sys
import time

import numpy as np
import pytest
import yaml

N_KILLS = 10


def run(recipe, folder, *options, timeout=None):
    """Whether it ended by itself; on the timeout it is killed with SIGKILL."""
    arguments = [sys.executable, "-m", "ofa", "run", recipe, "--run", folder, "--json", *options]
    try:
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=timeout, check=False)
    except subprocess.TimeoutExpired:
        return False
    assert done.returncode == 0, done.stderr
    return True


def results(folder):
    """Weights, accuracies, and the archs and files of all levels; their latencies come from tables that are given."""
    names = ["supernet.safetensors", "train.jsonl", "samples.json", "predictor.safetensors"]
    names += [f"accuracies/{name}.json" for name in ("a", "b")]
    summary = json.loads((folder / "summary.json").read_text())
    archs = {name: [level["arch"] for level in target["levels"]] for name, target in summary["targets"].items()}
    assert set(archs) == {"a", "b"}
    names += [str(path.relative_to(folder)) for path in sorted(folder.glob("targets/*/export/*.onnx"))]
    return archs | {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}


@pytest.mark.slow
def test_a_run_killed_at_random_moments_ends_as_if_it_never_was(tiny_recipe_text, finished, tmp_path):
    content = yaml.safe_load(tiny_recipe_text)
    content["train"]["checkpoint_seconds"] = 0.0  # after every step
    content["train"]["phases"] = [
        {"strategy": "full", "epochs": 2},
        {"strategy": "sandwich", "epochs": 6, "random": 2},
    ]
    table = finished / "targets/local/latency_table-float32.json"
    of_int8 = json.loads(table.read_text())
    of_int8["device"]["precision"] = "int8_static"
    (tmp_path / "int8.json").write_text(json.dumps(of_int8))
    content["targets"] = [
        {"name": "a", "levels": 2, "table": str(table)},
        {
            "name": "b",
            "precision": "int8_static",
            "levels": 2,
            "max_accuracy_drop_percent": 100.0,
            "table": str(tmp_path / "int8.json"),
        },
    ]
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(yaml.safe_dump(content))
    begin = time.monotonic()
    assert run(recipe, tmp_path / "undisturbed")
    duration = time.monotonic() - begin
    expected = results(tmp_path / "undisturbed")

    rng = np.random.default_rng(0)
    killed = 0
    for attempt in range(3 * N_KILLS):
        folder = tmp_path / f"run-{attempt}"
        if run(recipe, folder, timeout=float(rng.uniform(0.05, 0.95)) * duration):
            continue  # it was faster than the moment to kill it
        killed += 1
        assert run(recipe, folder, "--resume")
        assert results(folder) == expected
        if killed == N_KILLS:
            break
    assert killed == N_KILLS
