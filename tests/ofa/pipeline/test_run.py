import json

import pytest
import yaml

from ofa.core.errors import FamilyError, RunError
from ofa.pipeline.recipe import Recipe
from ofa.pipeline.run import Run, open_run
from ofa.pipeline.stage import all_stages


def quiet(done, total, message):
    pass


def changed(recipe, **sections):
    content = recipe.model_dump(mode="json")
    for name, values in sections.items():
        content[name] |= values
    return Recipe.model_validate(content)


def test_stages_come_after_those_they_need():
    seen = set()
    for name, stage in all_stages().items():
        assert set(stage.needs) <= seen
        seen.add(name)
    assert seen == {"train", "profile", "sample", "fit", "search", "export", "bundle", "report"}


def test_a_stage_without_its_needs_is_refused(tiny_recipe, tmp_path):
    run = Run(tiny_recipe, tmp_path / "run")
    with pytest.raises(RunError, match=r"'search' needs the 'fit' stage of .*; run `ofa fit` first"):
        run.execute(all_stages()["search"], quiet)
    assert not (tmp_path / "run" / "stages.json").exists()


def test_a_finished_run_is_finished_and_every_section_changes_what_reads_it(finished, tiny_recipe):
    run = open_run(finished)
    assert run.recipe == tiny_recipe
    assert all(run.finished(stage) for stage in all_stages().values())
    other = Run(changed(tiny_recipe, search={"levels": 2}), finished)
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


def test_a_later_stage_can_be_made_again_with_other_settings(finished, tiny_recipe):
    run = Run(changed(tiny_recipe, search={"levels": 2}), finished)
    run.execute(all_stages()["search"], quiet)
    assert len(run.read_json("front.json")["levels"]) == 2
    assert run.finished(all_stages()["search"])
    assert not run.finished(all_stages()["export"])


def test_what_reads_a_stage_that_is_made_again_has_to_be_made_again(finished):
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
    with pytest.raises(RunError, match="'export' needs the 'search' stage"):
        run.execute(all_stages()["export"], quiet)


def test_a_folder_of_other_files_is_left_alone(tiny_recipe, tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(RunError, match="holds other files"):
        Run(tiny_recipe, tmp_path)


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


def test_choices_are_coupled_as_the_recipe_says(tiny_recipe, tmp_path):
    couple = {"stage*.block*.expand": "stage*.depth"}
    run = Run(changed(tiny_recipe, family={"couple": couple}), tmp_path / "coupled")
    free = Run(tiny_recipe, tmp_path / "free")
    assert {choice.follows for choice in free.family.space.choices} == {None}
    assert run.family.space.choices == free.family.coupled(couple).space.choices != free.family.space.choices
    assert run.fingerprint(all_stages()["train"]) != free.fingerprint(all_stages()["train"])
    assert Recipe.model_validate(yaml.safe_load(run.recipe.to_yaml())).family.couple == couple


def test_a_coupling_that_matches_nothing_is_known_before_any_work(tiny_recipe, tmp_path):
    run = Run(changed(tiny_recipe, family={"couple": {"stage*.hight": "stage*.depth"}}), tmp_path / "run")
    with pytest.raises(FamilyError, match=r"cannot couple 'stage\*\.hight' to 'stage\*\.depth': unknown choice"):
        run.check_inputs()
