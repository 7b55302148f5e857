import json
import time
from dataclasses import replace

import pytest
import torch
import yaml

import ofa
from ofa.core.errors import FamilyError, RunError
from ofa.data.loaders import eval_batches
from ofa.pipeline.evaluate import evaluate
from ofa.pipeline.lock import locked
from ofa.pipeline.recipe import Recipe
from ofa.pipeline.run import Run, open_run
from ofa.pipeline.stage import all_stages


def quiet(done, total, message):
    pass


def changed(recipe, **sections):
    content = recipe.model_dump(mode="json")
    for name, values in sections.items():
        (content["targets"][0] if name == "target" else content[name]).update(values)
    return Recipe.model_validate(content)


def test_stages_come_after_those_they_need():
    seen = set()
    for name, stage in all_stages().items():
        assert set(stage.needs) <= seen
        seen.add(name)
    expected = {"train", "profile", "sample", "fit", "search", "finetune", "export", "bundle", "compare", "report"}
    assert seen == expected


def test_a_stage_without_its_needs_is_refused(tiny_recipe, tmp_path):
    run = Run(tiny_recipe, tmp_path / "run")
    with pytest.raises(RunError, match=r"'search' needs the 'fit' stage of .*; run `ofa fit` first"):
        run.execute(all_stages()["search"], quiet)
    assert not (tmp_path / "run" / "stages.json").exists()


def test_a_finished_run_is_finished_and_every_section_changes_what_reads_it(finished, tiny_recipe):
    run = open_run(finished)
    assert run.recipe == tiny_recipe
    assert all(run.finished(stage) for stage in all_stages().values())
    other = Run(changed(tiny_recipe, target={"levels": 2}), finished)
    done = {name for name, stage in all_stages().items() if other.finished(stage)}
    assert done == {"train", "sample", "fit", "profile"}


def test_inputs_from_another_recipe_are_refused_and_nothing_is_written(finished, tiny_recipe):
    before = (finished / "recipe.yaml").read_text(), (finished / "stages.json").read_text()
    other = Run(changed(tiny_recipe, data={"validation_percent": 10.0}), finished)
    with pytest.raises(RunError, match="'train' stage made with another recipe"):
        other.execute(all_stages()["sample"], quiet)
    with pytest.raises(RunError, match="'train' stage made with another recipe"):
        other.execute(all_stages()["train"], quiet)
    assert before == ((finished / "recipe.yaml").read_text(), (finished / "stages.json").read_text())


@pytest.mark.parametrize("name", ["profile", "sample", "train"])
def test_no_stage_replaces_the_recipe_that_the_supernet_was_trained_with(finished, tiny_recipe, name):
    before = (finished / "recipe.yaml").read_bytes()
    other = Run(changed(tiny_recipe, train={"lr": 0.07}), finished)
    with pytest.raises(RunError, match="'train' stage made with another recipe"):
        other.execute(all_stages()[name], quiet)
    assert (finished / "recipe.yaml").read_bytes() == before
    assert open_run(finished).finished(all_stages()["train"])


def test_a_later_stage_can_be_made_again_with_other_settings(finished, tiny_recipe):
    run = Run(changed(tiny_recipe, target={"levels": 2}), finished)
    run.execute(all_stages()["search"], quiet)
    assert len(run.target().read_json("front.json")["levels"]) == 2
    assert run.finished(all_stages()["search"])
    assert not run.finished(all_stages()["export"])


def test_records_are_in_the_order_of_stages(finished):
    path = finished / "stages.json"
    records = json.loads(path.read_text())
    path.write_text(json.dumps(dict(reversed(records.items()))))
    assert list(open_run(finished).records()) == [name for name in all_stages() if name in records]


def test_a_rerun_stage_makes_those_that_read_it_unfinished(finished):
    run = open_run(finished)
    run.execute(all_stages()["train"], quiet)  # comes out the same
    assert all(run.finished(stage) for stage in all_stages().values())
    run.execute(all_stages()["fit"], quiet)
    assert {name for name, stage in all_stages().items() if run.finished(stage)} == {
        "train",
        "sample",
        "fit",
        "profile",
    }
    with pytest.raises(RunError, match="'export' needs the 'finetune' stage"):
        run.execute(all_stages()["export"], quiet)


def test_a_folder_of_other_files_is_left_alone(tiny_recipe, tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(RunError, match="holds other files"):
        Run(tiny_recipe, tmp_path)


def test_a_run_that_was_killed_before_it_wrote_anything_goes_on(tiny_recipe, tmp_path):
    for name in (".lock", ".recipe.yaml.123.tmp"):
        (tmp_path / name).write_text("x")
    assert Run(tiny_recipe, tmp_path).folder == tmp_path


def test_a_folder_that_cannot_be_made_is_named(tiny_recipe, tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError, match="cannot write the run directory"):
        Run(tiny_recipe, tmp_path / "file" / "run")


def test_a_stage_that_fails_is_not_finished_and_its_time_is_kept(finished, tiny_recipe):
    run = Run(tiny_recipe, finished)
    (finished / "samples.json").write_text("{")
    with pytest.raises(RunError, match=r"samples\.json cannot be read"):
        run.execute(all_stages()["fit"], quiet)
    assert not run.finished(all_stages()["fit"])
    assert json.loads((finished / "stages.json").read_text())["fit"]["finished"] is None


def test_the_time_before_a_kill_counts(finished, tiny_recipe):
    run, path = Run(tiny_recipe, finished), finished / "stages.json"
    records = json.loads(path.read_text())
    for name, about, least in (("fit", "fit", 107.0), ("fit", "sample", 7.0)):
        path.write_text(json.dumps(records | {name: records[name] | {"finished": None, "seconds": 7.0}}))
        (finished / "progress.json").write_text(json.dumps({"stage": about, "seconds": 100.0}))
        run.execute(all_stages()[name], quiet)
        assert least <= json.loads(path.read_text())[name]["seconds"] < least + 90
    seen = []
    run.execute(all_stages()["fit"], lambda *_: seen.append(run.working_on()["seconds"]))
    assert 0 <= seen[0] < 60


def test_what_a_stage_is_at_is_kept_while_it_works(finished, tiny_recipe):
    run, seen = Run(tiny_recipe, finished), []
    run.execute(all_stages()["fit"], lambda *_: seen.append(run.working_on()))
    assert [(about["stage"], about["done"], about["message"]) for about in seen[:1]] == [("fit", 0, "begins")]
    assert time.time() - seen[0]["time"] < 60
    assert run.working_on() is None
    (finished / "samples.json").write_text("{")
    with pytest.raises(RunError):
        run.execute(all_stages()["fit"], quiet)
    assert run.working_on() is None
    (finished / "progress.json").write_text("{")
    assert run.working_on() is None


def test_choices_are_coupled_as_the_recipe_says(tiny_recipe, tmp_path):
    couple = {"stage*.block*.expand": "stage*.depth"}
    run = Run(changed(tiny_recipe, family={"couple": couple}), tmp_path / "coupled")
    free = Run(tiny_recipe, tmp_path / "free")
    assert {choice.follows for choice in free.family.space.choices} == {None}
    assert run.family.space.choices == free.family.coupled(couple).space.choices != free.family.space.choices
    assert run.fingerprint(all_stages()["train"]) != free.fingerprint(all_stages()["train"])
    assert Recipe.model_validate(yaml.safe_load(run.recipe.to_yaml())).family.couple == couple


def test_settings_at_their_defaults_are_no_part_of_what_a_stage_was_made_with(tiny_recipe, tmp_path):
    """So that a run goes on with a version that has more settings than the one that began it."""
    run = Run(tiny_recipe, tmp_path / "run")
    spelled_out = Run(Recipe.model_validate(yaml.safe_load(run.recipe.to_yaml())), tmp_path / "spelled out")
    for stage in all_stages().values():
        if not stage.per_target:
            settings = run.settings(stage)
            assert spelled_out.fingerprint(stage) == run.fingerprint(stage)
            for section in stage.sections:
                fields = type(getattr(run.recipe, section)).model_fields if settings[section] else {}
                given = settings[section] or {}
                assert not [name for name, field in fields.items() if name in given and given[name] == field.default]
    assert "tensorboard" not in run.settings(all_stages()["train"])["train"]
    other = Run(changed(tiny_recipe, train={"tensorboard": True}), tmp_path / "other")
    assert other.fingerprint(all_stages()["train"]) != run.fingerprint(all_stages()["train"])


def test_a_coupling_that_matches_nothing_is_known_before_any_work(tiny_recipe, tmp_path):
    run = Run(changed(tiny_recipe, family={"couple": {"stage*.hight": "stage*.depth"}}), tmp_path / "run")
    with pytest.raises(FamilyError, match=r"cannot couple 'stage\*\.hight' to 'stage\*\.depth': unknown choice"):
        run.check_inputs()


def test_a_run_directory_gives_a_network_that_scores_what_evaluate_says(finished):
    run = ofa.open_run(str(finished))
    arch = run.family.space.arch(run.levels[-1].arch)
    network, resolution = run.network(arch), int(arch["resolution"])
    assert not any(module.training for module in network.modules())
    metrics = ofa.evaluate(network, eval_batches(run.data, run.data.test, resolution))
    (entry,) = evaluate(run, [arch], "test")["archs"]
    assert (metrics.top1_percent, metrics.loss) == (entry["top1_percent"], entry["loss"])
    row = run.family.space.row(arch)
    images = eval_batches(run.data, run.data.test, resolution)[0][0]
    assert torch.equal(run.network(row)(images), network(images))


def test_the_supernet_of_a_run_is_the_one_that_its_file_gives(finished):
    run = ofa.open_run(finished)
    by_file = ofa.Supernet.load(finished / "supernet.safetensors")
    assert by_file.family.space.choices == run.family.space.choices
    assert all(torch.equal(tensor, by_file.state_dict()[name]) for name, tensor in run.supernet().state_dict().items())


def test_a_home_directory_is_expanded(finished, monkeypatch):
    monkeypatch.setenv("HOME", str(finished.parent))
    assert ofa.open_run("~/run").folder == finished


@pytest.mark.parametrize("content", [None, "", "name: x", "- 1", "{"])
def test_a_folder_that_is_no_run_is_named(tmp_path, content):
    if content is not None:
        (tmp_path / "recipe.yaml").write_text(content)
    with pytest.raises(RunError, match="is not a run directory with a readable recipe"):
        ofa.open_run(tmp_path)


def test_a_run_that_another_process_works_on_is_refused(finished, tiny_recipe):
    run = Run(tiny_recipe, finished)
    with locked(finished), pytest.raises(RunError, match="is working on"):
        run.execute(all_stages()["fit"], quiet)
    with run.exclusive(), run.exclusive():
        run.execute(all_stages()["fit"], quiet)
    with run.exclusive():
        pass


def test_checks_of_all_stages_run_before_any_long_work(tiny_recipe, tmp_path, monkeypatch):
    checked = []
    stages = {
        name: replace(stage, check=lambda holder, name=name: checked.append(name))
        for name, stage in all_stages().items()
    }
    for module in ("run", "folder"):
        monkeypatch.setattr(f"ofa.pipeline.{module}.all_stages", lambda: stages)
    Run(tiny_recipe, tmp_path / "run").check_inputs()
    assert checked == list(stages)


def test_stages_after_the_evaluation_of_subnets_read_no_images(finished, monkeypatch):
    monkeypatch.setattr("ofa.pipeline.run.load_data", lambda config: pytest.fail("images were read"))
    run = open_run(finished)
    run.execute(all_stages()["fit"], quiet)
    assert run.predictor()(run.family.space.row(run.family.space.largest)[None]).shape == (1,)
    assert run.data_info.labels == tuple("0123456789")


def test_images_that_changed_since_the_run_was_begun_are_refused(finished, monkeypatch):
    data = open_run(finished).data
    changed = replace(data, train=data.train.subset(range(1, len(data.train))))
    monkeypatch.setattr("ofa.pipeline.run.load_data", lambda config: changed)
    with pytest.raises(RunError, match=r"the images of 'digits' have changed since .* was begun; restore them"):
        _ = open_run(finished).data


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"info": 3}'])
def test_a_broken_record_of_the_data_is_one_error_or_made_again(finished, content):
    (finished / "data.json").write_text(content)
    if content == "{":
        with pytest.raises(RunError, match=r"data.json cannot be read"):
            _ = open_run(finished).data_info
    else:
        assert open_run(finished).data_info.name == "digits"
