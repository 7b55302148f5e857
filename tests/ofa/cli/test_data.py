import json

import pytest
import yaml
from PIL import Image

from ofa.data.config import DataConfig
from ofa.data.load import load_data
from ofa.data.overview import overview


@pytest.fixture
def recipe(tmp_path):
    """A recipe for a folder of pictures: `recipe(**changes of the section data)` returns its path."""
    for c, name in enumerate(("cat", "dog")):
        (tmp_path / "pets" / name).mkdir(parents=True)
        for i in range(12):
            Image.effect_noise((20 + i, 16), 60 + 40 * c).save(tmp_path / "pets" / name / f"{i}.png")

    def write(**changes):
        content = {
            "name": "pets",
            "family": {"name": "small_mobilenet_v3", "options": {"resolutions": [16, 24]}},
            "data": {"name": "image_folder", "folder": str(tmp_path / "pets")} | changes,
            "train": {"phases": [{"strategy": "sandwich", "epochs": 1}], "batch_size": 4},
        }
        (tmp_path / "pets.yaml").write_text(yaml.safe_dump(content))
        return tmp_path / "pets.yaml"

    return write


def test_what_was_found_is_shown_and_a_sheet_written(command, recipe, tmp_path):
    (tmp_path / "pets" / "notes.txt").write_text("no picture")
    sheet = tmp_path / "sheet.png"
    code, out, err = command("data", recipe(), "--sheet", sheet)
    assert code == 0
    for text in ("pets: images by class", "cat", "dog", "train", "validation", "test", "height: 16 to 16 pixels"):
        assert text in out
    assert "1 file outside the folders of classes" in err
    with Image.open(sheet) as image:
        assert image.size[0] > 800


def test_a_rescan_forgets_what_was_found_before(command, recipe, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    kept = tmp_path / "cache" / "ofa" / "index-0123456789abcdef.npz"
    kept.parent.mkdir(parents=True)
    kept.touch()
    for options, is_there in (((), True), (("--rescan",), False)):
        assert command("data", recipe(), "--sheet", tmp_path / "sheet.png", *options)[0] == 0
        assert kept.exists() == is_there


def test_json_is_what_the_library_gives(command, recipe, tmp_path):
    sheet = tmp_path / "sheet.png"
    code, out, _ = command("data", recipe(), "--sheet", sheet, "--json")
    assert code == 0
    data = load_data(DataConfig(name="image_folder", folder=tmp_path / "pets"))
    assert json.loads(out) == overview(data) | {"sheet": str(sheet)}


def test_findings_are_said_before_a_training(command, recipe, tmp_path):
    (tmp_path / "pets" / "notes.txt").write_text("no picture")
    code, _, err = command("train", recipe(), "--run", tmp_path / "run")
    assert code == 0
    assert "warning: skipped in" in err


def test_a_data_set_that_cannot_be_read_is_one_line(command, recipe, tmp_path):
    code, out, err = command("data", recipe(name="image_foldr"), "--sheet", tmp_path / "sheet.png")
    assert (code, out) == (2, "")
    assert "unknown data set 'image_foldr'; did you mean image_folder?" in " ".join(err.split())
    assert not (tmp_path / "sheet.png").exists()


def test_a_sheet_that_cannot_be_written_is_one_line(command, recipe, tmp_path):
    code, _, err = command("data", recipe(), "--sheet", tmp_path / "nowhere" / "sheet.png")
    assert code == 2
    assert "No such file or directory" in " ".join(err.split())
