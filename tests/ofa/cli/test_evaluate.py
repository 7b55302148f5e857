import json
import os
import shutil

import pytest

from ofa.pipeline.evaluate import evaluate
from ofa.pipeline.run import open_run


@pytest.fixture
def run(finished):
    return open_run(finished)


@pytest.fixture
def archs_json(run, tmp_path):
    path = tmp_path / "archs.json"
    path.write_text(
        json.dumps(run.target().read_json("front.json")["front"][:2] + [dict(run.family.space.smallest)] * 2)
    )
    return path


def test_json_is_what_the_library_gives_and_progress_goes_to_standard_error(command, run, finished, archs_json):
    code, out, err = command("evaluate", finished, "--archs", archs_json, "--split", "test", "--json")
    assert code == 0
    assert "evaluate: done" in err
    archs = [run.family.space.arch(item.get("arch", item)) for item in json.loads(archs_json.read_text())]
    assert json.loads(out) == evaluate(run, archs, "test")
    chosen = ("--images", 30, "--calibration-images", 20, "--json")
    ends = [run.family.space.largest, run.family.space.smallest]
    expected = evaluate(run, ends, "validation", max_images=30, calibration_images=20)
    assert json.loads(command("evaluate", finished, *chosen)[1]) == expected


def test_a_table(command, finished, archs_json):
    code, out, _ = command("evaluate", finished)
    assert code == 0
    for word in ("validation images", "largest", "smallest", "top-1 %", "top-5 %", "loss", "MACs M", "pixels"):
        assert word in out
    assert "largest" not in command("evaluate", finished, "--archs", archs_json)[1]


def test_archs_from_standard_input(command, finished, archs_json):
    kept = os.dup(0)
    try:
        with archs_json.open() as file:
            os.dup2(file.fileno(), 0)
        code, out, err = command("evaluate", finished, "--archs", "-", "--json")
    finally:
        os.dup2(kept, 0)
        os.close(kept)
    assert code == 0, err
    assert out == command("evaluate", finished, "--archs", archs_json, "--json")[1]


def test_a_recipe_means_its_usual_directory(command, finished, tiny_yaml, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = command("evaluate", "digits")
    assert (code, "runs/digits is not a run directory" in err) == (2, True)
    assert not (tmp_path / "runs").exists()
    for name, recipe in (("digits", "digits"), ("tiny", tiny_yaml)):
        shutil.copytree(finished, tmp_path / "runs" / name)
        code, out, err = command("evaluate", recipe, "--json")
        assert code == 0, err
        assert json.loads(out)["run"] == f"runs/{name}"
    shutil.copytree(finished, tmp_path / "digits")
    assert json.loads(command("evaluate", "digits", "--json")[1])["run"] == "digits"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--archs", "nowhere.json"), "cannot read archs from nowhere.json"),
        (("--archs", "empty.json"), "the list of archs is empty"),
        (("--archs", "broken.json"), "cannot read archs from broken.json"),
        (("--archs", "other.json"), "unknown choice 'block0.heads'"),
        (("--split", "dev"), "unknown split 'dev'; choose from train, validation, test"),
        (("--images", "0"), "--images"),
        (("--calibration-images", "1"), "--calibration-images"),
    ],
)
def test_what_cannot_be_evaluated_gets_one_clear_error(command, finished, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    texts = {"empty": "[]", "broken": "[{", "other": '[{"resolution": 16, "block0.heads": 3}]'}
    for name, text in texts.items():
        (tmp_path / f"{name}.json").write_text(text)
    code, out, err = command("evaluate", finished, *arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert "Traceback" not in err


def test_no_run_or_no_training_is_one_error(command, finished, tmp_path):
    code, _, err = command("evaluate", tmp_path / "nowhere")
    assert (code, "nowhere is not a run directory" in err) == (2, True)
    assert not (tmp_path / "nowhere").exists()
    (finished / "stages.json").unlink()
    code, out, err = command("evaluate", finished)
    assert (code, out) == (2, "")
    assert "'evaluate' needs the 'train' stage of" in err
