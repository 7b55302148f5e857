import json
import re
import shutil

import numpy as np
import pytest
import torch
import yaml

from export.session import INPUT, OUTPUT, session
from ofa.core.errors import CheckpointError, InfeasibleError, PredictorError, RunError
from ofa.data.loaders import eval_batches
from ofa.evaluate.calibrate import calibrate
from ofa.evaluate.metrics import evaluate
from ofa.pipeline import level_files
from ofa.pipeline.accuracy_store import Sample, read_samples
from ofa.pipeline.measured import read_model_rmse_percent
from ofa.pipeline.recipe import Recipe
from ofa.pipeline.run import Run, open_run
from ofa.pipeline.search import best_under
from ofa.pipeline.stage import all_stages
from ofa.predict.denoise import denoised_percent, estimate_percent


def quiet(done, total, message):
    pass


def run_with(finished, **target):
    content = yaml.safe_load((finished / "recipe.yaml").read_text())
    content["targets"][0] |= target
    return Run(Recipe.model_validate(content), finished)


def test_summary_has_what_is_promised_and_agrees_with_the_exported_files(finished):
    run = open_run(finished)
    summary = run.read_json("summary.json")
    assert set(summary) == {"space_size", "targets", "predictor", "seconds"}
    ((name, target),) = summary["targets"].items()
    assert set(target) == {"device", "levels", "seconds"}
    assert summary["space_size"] == run.family.space.size
    assert {"kendall_tau", "coverage_percent", "n_archs"} <= set(summary["predictor"])
    assert set(summary["seconds"]) == {"train", "sample", "fit", "compare"}
    assert set(target["seconds"]) == {"profile", "search", "export", "bundle"}
    assert target["levels"]
    latencies = [level["latency_ms"] for level in target["levels"]]
    assert latencies == sorted(latencies, reverse=True)
    supernet = run.supernet()
    for level in target["levels"]:
        arch = run.family.space.arch(level["arch"])
        static = supernet.extract(arch)
        assert sum(p.numel() for p in static.parameters()) == pytest.approx(level["params_m"] * 1e6)
        resolution = int(arch["resolution"])
        path = finished / "targets" / name / level["file"]
        assert (level["bytes"], level["size_mib"]) == (path.stat().st_size, path.stat().st_size / 2**20)
        assert (level["target"], level["precision"], level["measured"]) == (name, "float32", True)
        model = session(path)
        batches = eval_batches(run.data, run.data.test, resolution)
        right = sum(
            int((model.run([OUTPUT], {INPUT: x.numpy()})[0].argmax(axis=1) == y.numpy()).sum()) for x, y in batches
        )
        assert level["top1_percent"] == pytest.approx(100 * right / len(run.data.test))
        calibrate(static, eval_batches(run.data, run.data.train, resolution, limit=64))
        assert evaluate(static, batches).top1_percent == pytest.approx(level["top1_percent"])
        assert level["max_abs_diff"] <= 1e-4


def verified_samples(run):
    entries = run.read_json("accuracies/local.json")["samples"]
    return {run.family.space.arch(one["arch"]): Sample(one["top1_percent"], one["loss"]) for one in entries}


def test_the_front_is_not_beaten_by_any_measured_arch(finished):
    run = open_run(finished)
    target = run.target()
    front, table = target.read_json("front.json")["front"], target.latency_table()
    off = read_model_rmse_percent(run)
    samples = read_samples(run) | verified_samples(run)
    rows, (accuracies, losses) = run.family.space.rows(samples), np.array(list(samples.values())).T
    measured = denoised_percent(accuracies, losses, run.recipe.sample.images)
    images = {"n_images": run.recipe.sample.images, "model_rmse_percent": off}
    estimates = estimate_percent(measured, target.predictor()(rows), **images)
    # The stage predicted the archs in another order, which changes the last bits: float32 ones for accuracies.
    for latency, estimate in zip(table(rows) * (1 + 1e-12), estimates - 1e-5, strict=True):
        assert any(f["predicted_latency_ms"] <= latency and f["estimated_top1_percent"] >= estimate for f in front)


def count_measured(monkeypatch):
    measured = []
    measure = level_files.evaluate_subnets

    def counting(supernet, archs, *images, **options):
        measured.extend(archs)
        return measure(supernet, archs, *images, **options)

    monkeypatch.setattr(level_files, "evaluate_subnets", counting)
    return measured


def test_interrupted_sampling_resumes_with_the_same_result(finished, monkeypatch):
    whole = json.loads((finished / "samples.json").read_text())
    part = whole | {"samples": whole["samples"][:9]}
    (finished / "samples.json").write_text(json.dumps(part))
    measured = count_measured(monkeypatch)
    run = open_run(finished)
    run.execute(all_stages()["sample"], quiet)
    assert len(measured) == len(whole["samples"]) - 9
    assert json.loads((finished / "samples.json").read_text()) == whole


def test_the_search_refits_its_predictor_to_what_it_measures_and_resumes(finished, monkeypatch):
    run = open_run(finished)
    verified_path, refined_path = finished / "accuracies/local.json", run.target().path("refined.safetensors")
    whole, refined = json.loads(verified_path.read_text()), refined_path.read_bytes()
    sampled_before = read_samples(run)
    sampled = run.predictor()
    verified = verified_samples(run)
    assert verified
    assert not verified.keys() & sampled_before.keys()
    rows, measured = run.family.space.rows(verified), np.array(list(verified.values()))[:, 0]
    errors = [np.abs(predictor(rows) - measured).mean() for predictor in (sampled, run.target().predictor())]
    assert errors[1] < errors[0]
    verified_path.write_text(json.dumps(whole | {"samples": whole["samples"][:2]}))
    measured_again = count_measured(monkeypatch)
    run.execute(all_stages()["search"], quiet)
    assert len(measured_again) == len(verified) - 2
    assert json.loads(verified_path.read_text()) == whole
    assert refined_path.read_bytes() == refined


def test_search_and_predictor_never_read_the_test_split(finished):
    run = open_run(finished)

    class Untouchable:
        def __len__(self):
            raise AssertionError("the test split was read")

        __getitem__ = __len__

    object.__setattr__(run.data, "test", Untouchable())
    (finished / "samples.json").unlink()
    (finished / "accuracies/local.json").unlink()
    for name in ("sample", "fit", "search"):
        run.execute(all_stages()[name], quiet)


def test_levels_under_latency_limits_are_the_best_of_the_front_under_each(finished):
    run = open_run(finished)
    latencies = run.target().latency_table()(run.family.space.rows(read_samples(run)))
    limits = [float(latencies.max()), float(latencies.min())]
    run = run_with(finished, limits=[{"latency_ms": limit} for limit in limits])
    run.execute(all_stages()["search"], quiet)
    found = run.target().read_json("front.json")
    under = [[f for f in found["front"] if f["predicted_latency_ms"] <= limit] for limit in limits]
    best = [max(entries, key=lambda entry: entry["estimated_top1_percent"]) for entries in under]
    assert found["levels"] == (best if best[0] != best[1] else best[:1])  # a front of one arch serves both limits


def test_a_limit_below_the_fastest_arch_says_the_tightest_value_seen(finished):
    run, limit = open_run(finished), 1e-6
    table = run.target().latency_table()
    smallest = float(table(run.family.space.rows([run.family.space.smallest]))[0])
    with pytest.raises(InfeasibleError, match="the tightest seen is") as error:
        best_under(run.target(), {"latency_ms": limit})
    tightest = float(re.search(r"the tightest seen is ([\d.e-]+)", str(error.value))[1])
    assert limit < tightest <= smallest * 1.001  # a measured table may know one that is faster than the smallest
    before = run.target().path("front.json").read_bytes()
    with pytest.raises(InfeasibleError):
        run_with(finished, limits=[{"latency_ms": limit}]).execute(all_stages()["search"], quiet)
    assert run.target().path("front.json").read_bytes() == before


def test_an_accuracy_floor_above_the_best_is_refused_with_the_best(finished):
    with pytest.raises(InfeasibleError, match="above the best accuracy found"):
        run_with(finished, min_top1_percent=100.0, levels=2).execute(all_stages()["search"], quiet)


@pytest.mark.parametrize("file", ["supernet.safetensors", "predictor.safetensors"])
def test_truncated_weights_are_named(finished, file):
    path = finished / file
    path.write_bytes(path.read_bytes()[:500])
    (finished / "accuracies/local.json").unlink()  # so that there is something to measure
    with pytest.raises(CheckpointError, match=file):
        open_run(finished).execute(all_stages()["search"], quiet)


def test_a_missing_result_names_the_file(finished):
    (finished / "targets/local/front.json").unlink()
    with pytest.raises(RunError, match=r"front\.json cannot be read"):
        open_run(finished).execute(all_stages()["export"], quiet)


def test_weights_and_predictor_hold_only_tensors(finished):
    run = open_run(finished)
    supernet = run.supernet()
    assert all(torch.isfinite(p).all() for p in supernet.parameters())
    predictor = run.predictor()
    prediction = predictor.predict(run.family.space.rows([run.family.space.largest]))
    assert np.isfinite(prediction).all()
    assert prediction.low <= prediction.mean <= prediction.high


def starting_from(folder, start_from):
    content = yaml.safe_load((folder / "recipe.yaml").read_text())
    content["predictor"]["start_from"] = [str(start_from)]
    return Run(Recipe.model_validate(content), folder)


def test_a_run_starts_from_the_predictor_of_another_and_needs_it_no_more(finished, tmp_path):
    plain, second = open_run(finished).predictor(), tmp_path / "second"
    shutil.copytree(finished, second)
    run = starting_from(second, finished)
    run.check_inputs()
    run.execute(all_stages()["fit"], quiet)
    shutil.rmtree(finished)
    run.execute(all_stages()["search"], quiet)
    rows = run.family.space.sample(20, np.random.default_rng(0))
    for predictor in (run.predictor(), run.target().predictor()):
        assert np.array_equal(predictor.earlier[0](rows), plain(rows))
        assert not np.array_equal(predictor(rows), plain(rows))


def test_a_run_starts_from_one_of_another_family(finished, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(finished, other)
    content = yaml.safe_load((other / "recipe.yaml").read_text())
    content["family"]["options"]["resolutions"] = [12, 16, 24]  # other choices
    (other / "recipe.yaml").write_text(yaml.safe_dump(content))
    run = starting_from(finished, other)
    run.check_inputs()
    run.execute(all_stages()["fit"], quiet)
    shutil.rmtree(other)
    predictor = open_run(finished).predictor()
    (earlier,) = predictor.earlier
    assert earlier.name == "summary"
    rows = run.family.space.sample(20, np.random.default_rng(0))
    assert np.isfinite(predictor(rows)).all()
    assert len(np.unique(earlier(rows))) > 10


def test_a_predictor_without_what_it_reads_is_refused_before_the_training(finished):
    content = yaml.safe_load((finished / "recipe.yaml").read_text())
    content["predictor"] = {"name": "summary"}
    with pytest.raises(PredictorError, match="'summary' reads features alone"):
        Run(Recipe.model_validate(content), finished).check_inputs()


def test_what_is_wrong_with_an_earlier_run_is_known_before_the_training(finished, tmp_path):
    with pytest.raises(PredictorError, match="nowhere has no fitted predictor; run `ofa fit` there"):
        starting_from(finished, tmp_path / "nowhere").check_inputs()
    shutil.copytree(finished, tmp_path / "broken")
    (tmp_path / "broken/predictor.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"predictor\.safetensors is missing, truncated"):
        starting_from(finished, tmp_path / "broken").check_inputs()
