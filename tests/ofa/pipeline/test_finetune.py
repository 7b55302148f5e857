import json
import shutil

import numpy as np
import pytest
import torch
import yaml

from export.session import session
from ofa.core.tensors import read_tensors
from ofa.data.loaders import eval_batches
from ofa.pipeline.finetune import load_finetuned, weights_path
from ofa.pipeline.level_files import extract
from ofa.pipeline.recipe_file import load_recipe
from ofa.pipeline.run import Run
from ofa.pipeline.stage import all_stages


@pytest.fixture
def recipe(finished, tmp_path):
    """The recipe of the finished run with two levels, which are finetuned for an epoch."""
    content = yaml.safe_load((finished / "recipe.yaml").read_text())
    content["finetune"] = {"epochs": 1, "lr": 0.02}
    table = shutil.copy(finished / "targets/local/latency_table-float32.json", tmp_path / "table.json")
    content["targets"][0] |= {"levels": 2, "table": str(table)}
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def execute(run, *names, progress=lambda *_: None):
    for name in names:
        run.execute(all_stages()[name], progress)


def test_off_it_does_nothing(finished):
    target = Run(load_recipe(str(finished / "recipe.yaml")), finished).target()
    assert target.read_json("finetune.json") == {"levels": []}
    assert not target.path("finetuned").exists()
    assert "Finetuning" not in (finished / "report.html").read_text()


def test_levels_are_exported_with_their_finetuned_weights(command, finished, recipe):
    code, out, err = command("run", recipe, "--run", finished, "--resume", "--json")
    assert code == 0, err
    run = Run(load_recipe(str(recipe)), finished)
    target, supernet = run.target(), run.supernet()
    entries = target.read_json("finetune.json")["levels"]
    assert len(target.levels) == len(entries)
    for level in target.levels:
        arch = dict(level.arch)
        inherited, network = (extract(run, supernet, arch) for _ in range(2))
        load_finetuned(target, network, arch)
        assert not torch.equal(next(inherited.parameters()), next(network.parameters()))
        images = eval_batches(run.data, run.data.test, int(arch["resolution"]))
        n_images, n_right = 0, 0
        for x, y in images:
            logits = session(target.folder / level.file).run(None, {"images": x.contiguous().numpy()})[0]
            with torch.no_grad():
                assert np.abs(logits - network(x).numpy()).max() < 1e-4
            n_images, n_right = n_images + len(y), n_right + int((logits.argmax(1) == y.numpy()).sum())
        assert level.top1_percent == pytest.approx(100 * n_right / n_images)
        (entry,) = (one for one in entries if one["arch"] == arch)
        assert level.validation_top1_percent == pytest.approx(entry["finetuned_percent"])
    page = (finished / "report.html").read_text()
    assert "<h3>Finetuning</h3>" in page
    assert "finetune" in json.loads(out)["targets"]["local"]["seconds"]


@pytest.mark.slow
def test_what_is_finetuned_is_kept_and_other_settings_start_again(finished, recipe):
    run = Run(load_recipe(str(recipe)), finished)
    execute(run, "profile", "search")

    def stop(done, total, message):  # noqa: ARG001
        if message.startswith("level 2"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(run, "finetune", progress=stop)
    target = run.target()
    (first,) = target.path("finetuned").glob("*.safetensors")
    tensors, written = read_tensors(first)[0], first.stat().st_mtime_ns
    execute(run, "finetune")
    archs = [entry["arch"] for entry in target.read_json("front.json")["levels"]]
    assert {path.name for path in target.path("finetuned").iterdir()} == {weights_path(target, a).name for a in archs}
    assert first.stat().st_mtime_ns == written
    content = yaml.safe_load(recipe.read_text())
    content["finetune"]["lr"] = 0.05
    recipe.write_text(yaml.safe_dump(content))
    changed = Run(load_recipe(str(recipe)), finished)
    execute(changed, "finetune")
    assert not first.exists()
    again = weights_path(changed.target(), archs[0])
    assert any(not torch.equal(tensors[name], tensor) for name, tensor in read_tensors(again)[0].items())


@pytest.mark.parametrize(
    ("section", "change"),
    [
        ("finetune", {"epochs": 3}),
        ("finetune", {"lr": 0.05}),
        ("sample", {"calibration_images": 77}),
        ("train", {"lr": 0.07}),
        ("seed", 5),
    ],
)
def test_weights_have_a_name_that_says_all_that_they_depend_on(finished, recipe, section, change):
    """The records of a stage are forgotten when one that it needs runs again; its files are not."""
    before = Run(load_recipe(str(recipe)), finished)
    content = yaml.safe_load(recipe.read_text())
    content[section] = content[section] | change if isinstance(change, dict) else change
    recipe.write_text(yaml.safe_dump(content))
    arch = before.family.space.smallest
    after = Run(load_recipe(str(recipe)), finished)
    assert weights_path(before.target(), arch) == weights_path(before.target(), dict(arch))
    assert weights_path(before.target(), arch) != weights_path(after.target(), arch)
