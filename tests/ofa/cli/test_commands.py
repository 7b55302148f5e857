import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml

import ofa
from ofa.core.tensors import read_tensors
from ofa.pipeline.recipe_file import load_recipe
from ofa.pipeline.stage import all_stages
from ofa.supernet.importing import source


@pytest.fixture
def run_option(finished):
    return ("--run", finished)


def test_families_lists_every_family_with_its_exact_size(command):
    code, out, _ = command("families", "--json")
    assert code == 0
    found = {entry["name"]: entry for entry in json.loads(out)}
    assert sorted(found) == ofa.list_families()
    for name, entry in found.items():
        assert entry["space_size"] == ofa.create_family(name).space.size


def test_devices_and_env_as_tables_and_json(command):
    assert "ort-cpu" in json.loads(command("devices", "--json")[1])["devices"]
    assert "torch" in json.loads(command("env", "--json")[1])
    for name in ("families", "devices", "recipes", "env"):
        code, out, err = command(name)
        assert (code, err) == (0, "")
        assert out.strip()


def test_run_refuses_an_existing_run_and_resume_shows_the_summary(command, tiny_yaml, run_option, finished):
    code, out, err = command("run", tiny_yaml, *run_option)
    assert (code, out) == (2, "")
    assert "already holds a run; add --resume" in err
    code, out, _ = command("run", tiny_yaml, *run_option, "--resume", "--json")
    assert code == 0
    assert json.loads(out) == json.loads((finished / "summary.json").read_text())
    assert "levels out of" in command("run", tiny_yaml, *run_option, "--resume")[1]


def test_every_stage_alone(command, tiny_yaml, run_option):
    for name in ("train", "profile", "sample", "fit", "search", "finetune", "export", "bundle", "report"):
        code, _, err = command(name, tiny_yaml, *run_option)
        assert code == 0, err
        assert f"{name}: done" in err


def test_search_under_a_limit(command, tiny_yaml, run_option):
    front = json.loads(command("search", tiny_yaml, *run_option, "--json")[1])
    limit = front[len(front) // 2]["predicted_latency_ms"]
    (best,) = json.loads(command("search", tiny_yaml, *run_option, "--limit", f"latency_ms={limit}", "--json")[1])
    assert best["predicted_latency_ms"] <= limit * (1 + 1e-9)
    code, out, err = command("search", tiny_yaml, *run_option, "--limit", "latency_ms=1e-6")
    assert (code, out) == (2, "")
    assert "the tightest seen is" in err
    for limit in ("latency_ms=-1", "latency_ms=0", "latency_ms=nan", "latency_ms=x", "latency_ms", "speed=1", ""):
        code, out, err = command("search", tiny_yaml, *run_option, "--limit", limit)
        assert (code, out, "--limit" in err) == (2, "", True)


@pytest.mark.parametrize(
    ("arguments", "change", "stage"),
    [
        (("search", "--limit", "latency_ms=9"), {"targets": {"options": {"threads": 2}}}, "profile"),
        (("search", "--limit", "latency_ms=9"), {"predictor": {"name": "trees"}}, "fit"),
        (("bundle", "demo"), {"targets": {"levels": 1}}, "bundle"),
    ],
)
def test_what_was_made_with_another_recipe_is_no_answer(
    command, tiny_yaml, finished, tmp_path, arguments, change, stage
):
    content = yaml.safe_load(tiny_yaml.read_text())
    for section, values in change.items():
        (content["targets"][0] if section == "targets" else content.setdefault(section, {})).update(values)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(content))
    n_words = 2 if arguments[0] == "bundle" else 1
    code, out, err = command(*arguments[:n_words], recipe, *arguments[n_words:], "--run", finished)
    assert (code, out) == (2, "")
    assert f"'{stage}' stage" in err


def test_levels_that_a_later_search_made_old_are_not_joined(command, finished, tmp_path):
    run = ofa.open_run(finished)
    run.execute(all_stages()["search"], lambda *_: None)
    code, out, err = command("bundle", "join", finished, tmp_path / "both")
    assert (code, out, "needs the 'export' stage" in err) == (2, "", True)
    assert not (tmp_path / "both").exists()


def test_bundle_demo_replays_a_battery(command, tiny_yaml, run_option):
    code, out, _ = command("bundle", "demo", tiny_yaml, *run_option, "--steps", 5, "--json")
    steps = json.loads(out)
    assert code == 0
    assert [step["battery_percent"] for step in steps[:5]] == [100, 75, 50, 25, 0]
    assert steps[0]["level"] == 0
    assert steps[4]["level"] > 0
    assert steps[-1]["charging"]
    assert "battery replay" in command("bundle", "demo", tiny_yaml, *run_option)[1]


def test_bundle_demo_simulates_a_day_under_either_policy(command, tiny_yaml, run_option):
    demo = ("bundle", "demo", tiny_yaml, *run_option, "--hours", 2, "--steps", 4, "--requests-per-hour", 100)
    for options in ((), ("--policy", "endurance"), ("--latency-bound-ms", 1, "--power-w", 3)):
        code, out, err = command(*demo, *options, "--json")
        assert (code, err) == (0, "")
        day = json.loads(out)
        assert day["lasted"]
        assert [step["hours"] for step in day["steps"]] == [0.5, 1.0, 1.5, 2.0]
    out = command("bundle", "demo", tiny_yaml, *run_option, "--policy", "endurance")[1]
    assert "simulated day, endurance policy" in out
    assert "The battery lasted." in out
    code, _, err = command(*demo, "--capacity-wh", 0)
    assert (code, "capacity_wh = 0.0 is not allowed" in err) == (2, True)


def test_benchmark_measures_the_levels_of_a_run_or_files(command, finished, tmp_path):
    page = tmp_path / "page.html"
    code, out, _ = command("benchmark", finished, "--rounds", 1, "--page", page)
    assert code == 0
    assert "local/0" in out
    assert "local/0" in page.read_text()
    levels = json.loads((finished / "targets/local/export/levels.json").read_text())
    code, out, _ = command("benchmark", finished, "--target", "local", "--rounds", 1, "--json")
    rows = json.loads(out)
    assert [row["top1_percent"] for row in rows] == [level["top1_percent"] for level in levels]
    assert [row["size_mib"] for row in rows] == [level["size_mib"] for level in levels]
    files = [finished / "targets/local" / level["file"] for level in levels]
    code, out, _ = command("benchmark", *files, "--device-options", '{"threads": 1}', "--rounds", 1, "--json")
    assert [(row["name"], row["precision"]) for row in json.loads(out)] == [(path.name, "float32") for path in files]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ("none.onnx",),
            "none.onnx is not a file *.onnx, *.ort, *.pte, *.tflite, *.mnn, *.ncnn; give such a file, or the directory",
        ),
        (("a.onnx", "--target", "x"), "--target x is for a run; leave it out for files"),
        (("RUN", "--device", "ort-cpu"), "is not one run, whose targets name their devices, or files *.onnx"),
        (("RUN", "RUN"), "is not one run, whose targets name their devices, or files *.onnx"),
        (("RUN", "--target", "phone"), "has no target 'phone'"),
    ],
)
def test_what_cannot_be_benchmarked_is_one_error(command, finished, arguments, message):
    code, out, err = command("benchmark", *(str(finished) if word == "RUN" else word for word in arguments))
    assert (code, out) == (2, "")
    assert message in " ".join(err.split())


def test_help_names_every_command_and_no_arguments_is_no_traceback(command):
    _, out, _ = command("--help")
    for name in ("run", "train", "profile", "sample", "fit", "search", "export", "bundle", "report", "families", "env"):
        assert name in out


@pytest.mark.parametrize("arguments", [("fly",), ("run",), ("run", "digits", "--fast"), ("bundle", "demo")])
def test_wrong_usage_exits_with_2(command, arguments):
    code, _, err = command(*arguments)
    assert code == 2
    assert "Traceback" not in err


def test_recipe_by_name_uses_the_usual_directory(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, err = command("fit", "digits")
    assert code == 2
    assert "'fit' needs the 'sample' stage of runs/digits" in err
    assert load_recipe("digits").name == "digits"


def test_a_full_disk_is_one_error_and_leaves_no_partial_file(command, tiny_yaml, finished, monkeypatch):
    import ofa.core.files

    def full(_):
        raise OSError(28, "No space left on device")

    def contents():  # without the lock, which names the process that was the last to hold it
        return {path: path.read_bytes() for path in finished.rglob("*") if path.is_file() and path.name != ".lock"}

    before = contents()
    monkeypatch.setattr(ofa.core.files.os, "fsync", full)
    code, out, err = command("fit", tiny_yaml, "--run", finished)
    assert (code, out) == (2, "")
    assert "No space left on device" in err
    assert contents() == before


def test_a_corrupt_bundle_is_one_error(command, tiny_yaml, finished):
    model = finished / "targets/local/bundle/weights.bin"
    model.write_bytes(model.read_bytes()[:-1])
    code, _, err = command("bundle", "demo", tiny_yaml, "--run", finished)
    assert code == 2
    assert "weights.bin does not match its checksum" in err
    shutil.rmtree(finished / "targets/local/bundle")
    code, _, err = command("bundle", "demo", tiny_yaml, "--run", finished)
    assert (code, "manifest.json cannot be read" in err) == (2, True)


def test_a_table_of_another_family_is_refused(command, tiny_yaml, finished):
    path = finished / "targets/local/latency_table-float32.json"
    content = json.loads(path.read_text())
    content["family"] = {"name": "ofa_mobilenet_v3", "options": {}}
    path.write_text(json.dumps(content))
    code, _, err = command("search", tiny_yaml, "--run", finished)
    assert code == 2
    assert "is a table of family 'ofa_mobilenet_v3', not of 'small_mobilenet_v3'" in err


def test_the_recipe_reference_in_docs_is_the_present_one(command):
    page = Path(__file__).parents[3] / "docs" / "recipes.md"
    assert command("recipes", "--markdown")[1] == page.read_text()
    assert "train.phases[].epochs" in {key["key"] for key in json.loads(command("recipes", "--json")[1])["keys"]}


def test_an_imported_checkpoint_is_the_start_of_a_run(command, tiny_yaml, tmp_path):
    """Weights of the once-for-all project, under its names, go straight to the latency table and the search."""
    options = {"num_classes": 10, "in_channels": 1, "resolutions": [32, 48], "width_mult": 0.35}
    family = ofa.create_family("ofa_proxyless", **options)
    weights = ofa.Supernet(family, seed=8).network.state_dict()
    theirs = {name: weights[ours] for ours, name in source("once-for-all").names(family).items()}
    torch.save({"state_dict": theirs}, tmp_path / "proxyless.pth")
    chosen = [text for name, value in options.items() for text in ("--option", f"{name}={value}")]
    out = tmp_path / "weights.safetensors"
    code, _, err = command("import", "once-for-all", tmp_path / "proxyless.pth", "ofa_proxyless", "--out", out, *chosen)
    assert (code, err) == (0, "")
    recipe = yaml.safe_load(tiny_yaml.read_text())
    recipe["family"] = {"name": "ofa_proxyless", "options": {"resolutions": [32, 48], "width_mult": 0.35}}
    recipe["train"] = {"phases": [], "initial_weights": str(out)}
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe))
    code, _, err = command("train", path, "--run", tmp_path / "run")
    assert code == 0, err
    trained = read_tensors(tmp_path / "run" / "supernet.safetensors")[0]
    assert all(torch.equal(trained[name], tensor) for name, tensor in weights.items())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("nowhere", "x.pth", "ofa_proxyless"),
            "unknown source of checkpoints 'nowhere'; choose from autoformer, once-for-all",
        ),
        (("autoformer", "x.pth", "autoformer_tiny"), "no checkpoint x.pth"),
        (("autoformer", "x.pth", "ofa_proxyless"), "family 'ofa_proxyless' cannot hold an AutoFormer checkpoint"),
        (("autoformer", "x.pth", "proxyless"), "unknown family 'proxyless'"),
        (("autoformer", "x.pth", "autoformer_tiny", "--option", "depths"), "is not KEY=VALUE"),
        (("autoformer", "x.pth", "autoformer_tiny", "--option", "depths=[3"), "has no readable value"),
        (
            ("autoformer", "x.pth", "autoformer_tiny", "--option", "depth=3"),
            "has no option 'depth'; did you mean depths?",
        ),
    ],
)
def test_what_cannot_be_imported_gets_one_clear_error(command, arguments, said):
    code, out, err = command("import", *arguments)
    assert (code, out) == (2, "")
    assert said in err
