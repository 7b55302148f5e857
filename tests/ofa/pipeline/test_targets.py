"""One training and several targets: what each has of its own, what they share, and what keeps them apart."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import yaml

from export.runtime import Runtime
from export.session import session
from export.stages import bundle_targets
from ofa.core.errors import DeviceError, InfeasibleError, RunError, TableError
from ofa.data.loaders import eval_batches
from ofa.pipeline import target as target_module
from ofa.pipeline.accuracy_store import AccuracyStore, Sample, read_accuracies
from ofa.pipeline.compare import mean_loss, read_comparison
from ofa.pipeline.lock import locked
from ofa.pipeline.measured import precision_drop, predicted_and_estimated
from ofa.pipeline.recipe import TargetConfig
from ofa.pipeline.recipe_file import load_recipe
from ofa.pipeline.run import Run, open_run
from ofa.pipeline.stage import all_stages
from ofa.pipeline.target import Target, read_target

SHARED = ("supernet.safetensors", "samples.json", "predictor.safetensors", "predictor.json", "train.jsonl")


def hashes(folder):
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in SHARED}


@pytest.fixture
def table(finished):
    return finished / "targets/local/latency_table-float32.json"


@pytest.fixture
def no_device(monkeypatch):
    monkeypatch.setattr(target_module, "create_device", lambda *_, **__: pytest.fail("a device was created"))


def recipe_with(finished, *targets):
    """The finished run's recipe, whose first target is followed by others."""
    content = yaml.safe_load((finished / "recipe.yaml").read_text())
    content["targets"] += targets
    path = finished.parent / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.usefixtures("no_device")
def test_a_target_from_a_table_is_made_without_a_device_and_says_predicted(finished, table):
    before = hashes(finished)
    run = open_run(finished)
    config = TargetConfig(name="elsewhere", table=table, levels=2, power={"busy_w": 3.0})
    target = run.specialize(config)
    assert hashes(finished) == before
    assert [level.measured for level in target.levels] == [False] * len(target.levels)
    for level in target.levels:
        assert level.latency_ms == level.predicted_latency_ms
        assert level.energy_mj == pytest.approx(3.0 * level.latency_ms)
        assert (target.folder / level.file).stat().st_size == level.bytes
    assert [one.name for one in open_run(finished).targets] == ["local", "elsewhere"]
    assert open_run(finished).target("elsewhere").config == config
    assert {level.target for level in run.levels} == {"local", "elsewhere"}
    assert (target.folder / "bundle" / "manifest.json").is_file()
    joined = bundle_targets(run, run.targets, finished.parent / "joined")
    assert [(level.target, level.top1_percent) for level in joined.levels] == [
        (level.target, level.top1_percent) for level in run.levels
    ]
    with Runtime(joined.folder, "elsewhere") as runtime:
        assert [level.arch for level in runtime.levels] == [level.arch for level in target.levels]


@pytest.mark.slow
@pytest.mark.usefixtures("no_device")
def test_accuracies_of_one_target_are_known_to_all_and_stay_when_it_is_removed(finished, table):
    run = open_run(finished)
    run.specialize(TargetConfig(name="first", table=table, levels=2))
    accuracies = read_accuracies(run)
    assert len(accuracies["float32"]) > len(read_accuracies(run, without="local")["float32"])
    run.remove_target("first")
    assert [target.name for target in run.targets] == ["local"]
    assert not run.path("targets/first").exists()
    assert read_accuracies(run) == accuracies
    again = run.specialize(TargetConfig(name="first", table=table, levels=2))
    assert read_accuracies(run) == accuracies  # the same search finds the same archs, all of them measured
    assert again.read_json("front.json")["verified"] > 0
    with pytest.raises(RunError, match=r"has no target 'frst'; did you mean first\?"):
        run.remove_target("frst")


@pytest.mark.slow
def test_a_limit_on_any_cost_is_met_and_several_at_once(finished, table):
    run = open_run(finished)
    front = run.target().read_json("front.json")["front"]
    middle = sorted(entry["macs_m"] for entry in front)[len(front) // 2]
    largest_mib = max(level.size_mib for level in run.levels)
    limits = [{"macs_m": middle, "size_mib": largest_mib}, {"peak_activation_mib": 1.0, "params_m": 1.0}]
    target = run.specialize(TargetConfig(name="small", table=table, limits=limits, objective="macs_m"))
    within = [level for level in target.levels if level.macs_m <= middle and level.size_mib <= largest_mib]
    assert within
    assert all(level.peak_activation_mib <= 1.0 and level.params_m <= 1.0 for level in target.levels)


@pytest.mark.usefixtures("no_device")
def test_in_another_precision_accuracy_and_size_are_those_of_the_file(finished, table, monkeypatch):
    content = json.loads(table.read_text())
    content["device"]["precision"] = "int8_static"
    int8 = finished / "int8.json"
    int8.write_text(json.dumps(content))
    recipe = yaml.safe_load((finished / "recipe.yaml").read_text())
    recipe["search"] |= {"rounds": 1, "verify": 3}
    (finished / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    run = open_run(finished)
    config = TargetConfig(name="int8", table=int8, precision="int8_static", levels=2, max_accuracy_drop_percent=100.0)
    target = run.specialize(config)
    accuracies = read_accuracies(run)
    lossy, front = accuracies["int8_static"], target.read_json("front.json")["front"]
    assert len(lossy) >= 4
    assert lossy.keys() <= accuracies["float32"].keys()
    drop = precision_drop(run, accuracies, "int8_static")
    for entry in front:
        arch = run.family.space.arch(entry["arch"])
        assert (entry["precision"], entry["top1_percent"]) == ("int8_static", lossy[arch].top1_percent)
        expected_drop = float(drop(run.family.space.rows([arch]))[0])  # of a process fitted to another order of archs
        assert entry["accuracy_drop_percent"] == pytest.approx(expected_drop, abs=0.05)
    for level in target.levels:
        path = target.folder / level.file
        assert "QuantizeLinear" in {node.op_type for node in onnx.load(path).graph.node}
        assert path.stat().st_size == level.bytes
        (batch,) = eval_batches(run.data, run.data.test, int(level.arch["resolution"]), batch_size=10**6)
        classes = session(path).run(None, {"images": batch[0].numpy()})[0].argmax(axis=1)
        expected = run.network(level.arch)(batch[0]).argmax(1).numpy()
        assert level.top1_percent == pytest.approx(100 * np.mean(classes == batch[1].numpy()))
        assert level.same_top1_percent == pytest.approx(100 * np.mean(classes == expected))
        lost = 100 * (np.mean(expected == batch[1].numpy()) - np.mean(classes == batch[1].numpy()))
        assert level.accuracy_drop_percent == pytest.approx(lost)
        assert json.loads(session(path).get_modelmeta().custom_metadata_map["ofa.arch"]) == dict(level.arch)
    lose_20_points = lambda *_: lambda rows: np.full(len(rows), 20.0)  # noqa: E731
    monkeypatch.setattr("ofa.pipeline.measured.PrecisionDrop", lose_20_points)
    strict = config.model_copy(update={"name": "strict", "max_accuracy_drop_percent": 1.0})
    with pytest.raises(InfeasibleError, match="accuracy_drop_percent must be at most 1, the tightest seen is 20"):
        run.specialize(strict)


@pytest.mark.parametrize("cost", ["macs_m", "params_m", "size_mib", "peak_activation_mib"])
def test_a_counted_limit_that_nobody_meets_is_known_before_any_work(finished, tmp_path, cost):
    path = recipe_with(finished, {"name": "tiny", "limits": [{cost: 1e-6, "latency_ms": 5.0}]})
    run = Run(load_recipe(str(path)), tmp_path / "new")
    with pytest.raises(InfeasibleError, match=rf"target 'tiny': .*{cost} must be at most 1e-06, the tightest seen is"):
        run.check_inputs()
    assert not (tmp_path / "new" / "train.jsonl").exists()


def test_what_a_target_cannot_be_is_one_error(finished, table, tmp_path):
    run = open_run(finished)
    wrong = json.loads(table.read_text())
    wrong["family"] = {"name": "ofa_mobilenet_v3", "options": {}}
    (tmp_path / "wrong.json").write_text(json.dumps(wrong))
    for settings, kind, message in (
        ({"device": "ort-gpu"}, DeviceError, "unknown device 'ort-gpu'"),
        ({"options": {"treads": 2}}, DeviceError, "did you mean threads"),
        (
            {"device": "openvino-cpu", "precision": "int8_dynamic"},
            DeviceError,
            "does not run int8_dynamic; choose from",
        ),
        (
            {"format": "mnn"},
            DeviceError,
            "target 'x': ort-cpu does not run files of the format 'mnn'; set format: onnx or web, or choose",
        ),
        ({"device": "mnn-cpu"}, DeviceError, "mnn-cpu does not run files of the format 'onnx'; set format: mnn"),
        ({"table": tmp_path / "none.json"}, TableError, "none.json is not a readable latency table"),
        ({"table": tmp_path / "wrong.json"}, TableError, "is a table of family 'ofa_mobilenet_v3'"),
        ({"table": table, "batch": 8}, TableError, "was measured with batch 1, target 'x' has batch 8"),
        ({"table": table, "precision": "int8_static"}, TableError, "was measured with precision 'float32'"),
    ):
        with pytest.raises(kind, match=message):
            run.specialize(TargetConfig(name="x", **settings))
    with pytest.raises(InfeasibleError, match=r"target 'x': .*size_mib must be at most 1e-05, the tightest seen is"):
        run.specialize(TargetConfig(name="x", limits=[{"size_mib": 1e-5}]))
    with pytest.raises(RunError, match="has a target 'local'; give another name"):
        run.specialize(TargetConfig(name="local", batch=2))
    assert [target.name for target in open_run(finished).targets] == ["local"]


def test_a_run_that_is_not_trained_gets_no_targets(finished, tmp_path):
    run = Run(open_run(finished).recipe, tmp_path / "new")
    with pytest.raises(RunError, match="'target x' needs the 'train' stage"):
        run.specialize(TargetConfig(name="x"))


@pytest.mark.slow
@pytest.mark.usefixtures("no_device")
def test_a_changed_target_is_made_again_and_the_others_stay(finished, table):
    recipe = recipe_with(finished, {"name": "b", "table": str(table), "levels": 2})
    run = Run(load_recipe(str(recipe)), finished)
    run.specialize(run.target("b").config)
    local = {path: path.read_bytes() for path in run.target("local").folder.rglob("*") if path.is_file()}
    content = yaml.safe_load(recipe.read_text())
    content["targets"][1]["levels"] = 1
    recipe.write_text(yaml.safe_dump(content))
    changed = Run(load_recipe(str(recipe)), finished)
    assert changed.target("b").finished_stages() == ["profile"]
    changed.specialize(changed.target("b").config)
    assert len(changed.target("b").levels) == 1
    assert {path: path.read_bytes() for path in local} == local
    assert all(changed.target("local").finished(stage) for stage in all_stages().values() if stage.per_target)


@pytest.mark.slow
def test_partial_samples_of_other_settings_are_removed_and_those_of_the_same_kept(finished, table):
    run = open_run(finished)
    profile = all_stages()["profile"]
    target = run.specialize(TargetConfig(name="b", table=table, levels=1))
    samples = target.path("latency_samples-float32.json")
    samples.write_text("{}")
    target.execute(profile, lambda *_: None)
    assert samples.exists()
    table.write_bytes(table.read_bytes() + b"\n")
    changed = run.new_target(TargetConfig(name="b", table=table, levels=1))
    changed.execute(profile, lambda *_: None)
    assert not samples.exists()


def test_a_table_counts_by_its_content(finished, table, tmp_path):
    run, profile = open_run(finished), all_stages()["profile"]
    given = Path(shutil.copy(table, tmp_path / "pi.json"))

    def fingerprint(path):
        return Target(run, TargetConfig(name="pi", table=path)).fingerprint(profile)

    first = fingerprint(given)
    assert fingerprint(shutil.copy(given, tmp_path / "moved.json")) == first
    content = json.loads(given.read_text())
    content["overhead"]["median_ms"] *= 2
    given.write_text(json.dumps(content))
    assert fingerprint(given) != first
    copy = finished / "targets/pi/latency_table-float32.json"
    copy.parent.mkdir()
    shutil.copy(table, copy)
    given.unlink()
    assert fingerprint(given) == first  # the run has a copy of what is gone


def test_what_a_network_loses_in_a_precision_is_measured_for_each_format(finished):
    run, measured = open_run(finished), []
    smallest, largest = run.family.space.smallest, run.family.space.largest

    def store(target, file_format):
        def measure(precision, archs):
            measured.extend((file_format, precision, arch) for arch in archs)
            return [(arch, Sample(len(measured), 0.5)) for arch in archs]

        known = read_accuracies(run, file_format=file_format)
        return AccuracyStore(run, f"accuracies/{target}.json", measure, known=known, file_format=file_format)

    for target, file_format in (("server", "onnx"), ("phone", "litert"), ("server", "litert"), ("laptop", "onnx")):
        for precision in ("float32", "int8_static"):
            store(target, file_format).measure(precision, [smallest, largest], lambda *_: None)
    lossy = [one for one in measured if one[1] != "float32"]
    assert lossy == [
        ("onnx", "int8_static", smallest),
        ("onnx", "int8_static", largest),
        ("litert", "int8_static", smallest),
        ("litert", "int8_static", largest),
    ]
    assert not [one for one in measured if one[1] == "float32"]  # the run sampled both


def test_a_level_of_another_target_has_the_number_that_it_has_there(finished, table):
    run = open_run(finished)
    path = run.target().path("export/levels.json")
    levels = json.loads(path.read_text())
    path.write_text(json.dumps(levels[::-1]))  # as if the measured order were the reverse of the predicted one
    run.specialize(TargetConfig(name="b", table=table, levels=1))
    run.execute(all_stages()["compare"], lambda *_: None)
    entries = [entry for entry in read_comparison(run) if entry["made_for"] == "local"]
    assert len(entries) == len(levels) > 1
    for entry in entries:
        assert entry["arch"] == dict(run.target("local").levels[entry["level"]].arch)


def test_other_processes_of_a_job_work_under_the_lock_of_the_first(finished, monkeypatch):
    target = open_run(finished).target()
    with target.exclusive():
        monkeypatch.setattr("ofa.core.distributed.rank", lambda: 1)
        with open_run(finished).target().exclusive():
            pass


HOLDER = """
import sys, time, ofa
target = ofa.open_run(sys.argv[1]).target("local")
with target.exclusive():
    print("locked", flush=True)
    time.sleep(60)
"""


@pytest.mark.slow
def test_two_processes_may_work_on_two_targets_but_not_on_one(finished, table):
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, finished], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "locked\n"
        run = open_run(finished)
        target = run.specialize(TargetConfig(name="b", table=table, levels=1))
        assert target.levels
        with pytest.raises(RunError, match=rf"process {holder.pid} is working on .*targets/local"):
            run.target("local").execute(all_stages()["bundle"], lambda *_: None)
        with pytest.raises(RunError, match="is working on"):  # what they share does not change under them
            run.execute(all_stages()["fit"], lambda *_: None)
    finally:
        holder.kill()
        holder.communicate()
    with locked(finished), pytest.raises(RunError, match="is working on"):
        open_run(finished).target("local").execute(all_stages()["bundle"], lambda *_: None)


@pytest.mark.slow
def test_a_target_whose_device_is_gone_costs_itself_only(finished, table, command, tmp_path):
    (tmp_path / "token").write_text("a-token-of-32-characters-at-least")
    gone = {"name": "phone", "device": "remote", "levels": 1}
    gone |= {"options": {"urls": ["http://127.0.0.1:9"], "token_file": str(tmp_path / "token"), "timeout_s": 0.5}}
    recipe = recipe_with(finished, gone, {"name": "b", "table": str(table), "levels": 1})
    code, out, err = command("run", recipe, "--run", finished, "--resume", "--json")
    assert code == 2
    assert "target 'phone' cannot be made now, the others can: remote: http://127.0.0.1:9 does not answer" in err
    assert "target 'phone' failed, the others go on" in err
    assert err.rstrip().splitlines()[-1].startswith("error: not made, see above: phone; mend")
    assert list(json.loads(out)["targets"]) == ["local", "b"]
    assert "<h2>Target b</h2>" in (finished / "report.html").read_text()
    _, out, _ = command("run", recipe, "--run", finished, "--resume")
    assert [Path(line).parts[-2] for line in out.splitlines() if line.endswith("bundle")] == ["local", "b"]


def test_the_command_specialize_adds_lists_and_removes_a_target(finished, table, command):
    options = ("--name", "pi", "--table", table, "--limit", "latency_ms=100,size_mib=5", "--limit", "macs_m=50")
    code, out, err = command("specialize", finished, *options, "--json")
    assert code == 0, err
    assert all(level["target"] == "pi" and not level["measured"] for level in json.loads(out)["levels"])
    (entry,) = (one for one in json.loads(command("targets", finished, "--json")[1]) if one["name"] == "pi")
    assert entry["limits"] == [{"latency_ms": 100.0, "size_mib": 5.0}, {"macs_m": 50.0}]
    assert not entry["in_recipe"]
    assert entry["finished"] == ["profile", "search", "finetune", "export", "bundle"]
    assert "pi" in command("targets", finished)[1]
    assert "pi" in command("specialize", finished, *options)[1]
    page = (finished / "report.html").read_text()
    assert "<h2>What specializing is worth</h2>" in page
    code, out, _ = command("targets", finished, "--remove", "pi")
    assert (code, (finished / "targets/pi").exists()) == (0, False)
    code, _, err = command("specialize", finished, "--name", "pi", "--precision", "int4")
    assert (code, "precision = 'int4'" in err) == (2, True)
    code, _, err = command("specialize", finished, "--name", "pi", "--device-options", "[1]")
    assert (code, "--device-options '[1]' is not a JSON object" in err) == (2, True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name: [a", "cannot be read (while parsing"),
        ("name: a\nspeed: 3", "speed: unknown key"),
        ("[]", "[]: input should be"),
        ("", "None: input should be"),
    ],
)
def test_a_malformed_target_is_one_line_that_says_what_to_do(tmp_path, text, said):
    (tmp_path / "target.yaml").write_text(text)
    with pytest.raises(RunError) as error:
        read_target(tmp_path)
    assert said in str(error.value)
    assert "remove the folder and make the target again" in str(error.value)
    assert "\n" not in str(error.value)


def test_networks_are_compared_on_each_other_target(finished, table, monkeypatch):
    content = json.loads(table.read_text())
    for timing in (content["overhead"], *content["rows"], *content["networks"], *content["checks"]):
        timing["median_ms"], timing["spread_ms"] = 3 * timing["median_ms"], 3 * timing["spread_ms"]
    slow = finished / "slow.json"
    slow.write_text(json.dumps(content))
    run = open_run(finished)
    run.specialize(TargetConfig(name="slow", table=slow, levels=2))
    monkeypatch.setattr(target_module, "create_device", refuse)
    with pytest.warns(UserWarning, match="are predicted on 'local': the device is gone"):
        run.execute(all_stages()["compare"], lambda *_: None)
    entries = read_comparison(run)
    pairs = [(entry["made_for"], entry["target"]) for entry in entries]
    n_local, n_slow = len(run.target("local").levels), len(run.target("slow").levels)
    assert pairs == [("slow", "local")] * n_slow + [("local", "slow")] * n_local
    tables = {name: run.target(name).latency_table() for name in ("local", "slow")}
    for entry in entries:
        row = run.family.space.rows([entry["arch"]])
        assert entry["latency_ms"] == entry["predicted_latency_ms"] == pytest.approx(tables[entry["target"]](row)[0])
        assert not entry["measured"]
        target = run.target(entry["target"])
        float32 = read_accuracies(run)["float32"]
        _, estimated = predicted_and_estimated(run, float32, target.predictor())
        estimates = dict(zip(float32, estimated, strict=True))
        assert entry["estimated_top1_percent"] == pytest.approx(estimates[run.family.space.arch(entry["arch"])])
        front = target.read_json("front.json")["front"]
        best = [
            estimates[run.family.space.arch(one["arch"])]
            for one in front
            if one["predicted_latency_ms"] <= entry["latency_ms"]
        ]
        lost = entry["lost_top1_percent"]
        assert (lost is None) == (not best)
        assert lost is None or lost == pytest.approx(max(best) - entry["estimated_top1_percent"])
    losses = [entry["lost_top1_percent"] for entry in entries[:n_slow] if entry["lost_top1_percent"] is not None]
    loss = mean_loss(entries, "slow", "local")
    assert loss is None or loss[0] == pytest.approx(sum(losses) / len(losses))
    assert mean_loss(entries, "local", "local") is None


def refuse(*_, **__):
    raise DeviceError("the device is gone")


@pytest.mark.slow
def test_another_runtime_is_profiled_exported_for_and_served(finished):
    pytest.importorskip("_tools", reason="needs the extra mnn")
    target = open_run(finished).specialize(TargetConfig(name="mnn", device="mnn-cpu", format="mnn", levels=2))
    assert target.latency_table("float32").device["runtime"] == "mnn"
    for level in target.levels:
        assert (level.format, Path(level.file).suffix, level.measured) == ("mnn", ".mnn", True)
        assert level.same_top1_percent == 100
        assert level.max_abs_diff < 1e-3
    with Runtime(target.path("bundle")) as runtime:
        assert [level.file for level in runtime.levels] == [f"level-{i}.mnn" for i in range(len(target.levels))]
        assert runtime.target == "mnn"
