import os
import signal
import subprocess
import sys
import time

import pytest
import yaml

from ofa.cli import app
from ofa.train.stopping import Stopped


@pytest.mark.parametrize(
    ("stopped", "message"),
    [
        (KeyboardInterrupt(), "stopped; continue with `ofa run RECIPE --resume`"),
        (Stopped("stopped after step 3 of 9, saved in [red]runs; the same command resumes from there"), None),
    ],
)
@pytest.mark.parametrize("place", ["command", "assembly"])
def test_ctrl_c_says_how_to_continue(command, monkeypatch, stopped, message, place):
    def families():
        raise stopped

    monkeypatch.setattr(app, "families" if place == "command" else "build", families)
    assert command("families") == (130, "", f"{message or stopped}\n")


def test_ctrl_c_ends_a_training_with_what_resumes_it(tiny_yaml, tmp_path):
    recipe = yaml.safe_load(tiny_yaml.read_text())
    recipe["train"] |= {"phases": [{"strategy": "full", "epochs": 1000}], "validated_archs": 0}
    (tmp_path / "long.yaml").write_text(yaml.safe_dump(recipe))
    process = subprocess.Popen(
        [sys.executable, "-m", "ofa", "train", tmp_path / "long.yaml", "--run", tmp_path / "run"],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        while process.poll() is None and not list((tmp_path / "run").rglob("train.jsonl")):
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert (process.returncode, out) == (130, "")
    assert "stopped after step" in err
    assert "the same command resumes from there" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(("arguments", "code"), [(("--help",), 0), (("train", "--help"), 0), ((), 2), (("fly",), 2)])
def test_help_and_wrong_usage_end_as_before(command, arguments, code):
    assert command(*arguments)[0] == code
