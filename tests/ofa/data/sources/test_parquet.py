import json

import pytest

from ofa.core.errors import DataError
from ofa.data.config import DataConfig
from ofa.data.load import load_data
from ofa.data.sources import parquet as source
from tests.ofa.data.sources.conftest import png

arrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")


@pytest.fixture
def save(tmp_path, picture):
    """Writes a file: `save(**columns)` returns its configuration. By default, 12 images of 2 classes."""

    def write(metadata=None, options=None, **changes):
        columns = {"image": [png(picture([20 * i, 90, 40])) for i in range(12)], "label": ["cat", "dog"] * 6} | changes
        table = arrow.table({name: values for name, values in columns.items() if values is not None})
        parquet.write_table(table.replace_schema_metadata(metadata), tmp_path / "pets.parquet", row_group_size=5)
        return DataConfig(name="parquet", folder=tmp_path / "pets.parquet", options=options or {})

    return write


def named(names):
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    return {"huggingface": json.dumps({"info": {"features": features}})}


def everything(data):
    return [images[i] for images in (data.train, data.validation, data.test) for i in range(len(images))]


def test_names_of_classes_are_those_that_the_file_notes(save):
    data = load_data(save(named(["cat", "dog", "emu"]), label=[0, 1] * 6))
    assert data.labels == ("cat", "dog", "emu")
    assert len(everything(data)) == 12
    assert load_data(save(label=[3, 12] * 6)).labels == ("3", "12")


def test_each_file_may_name_its_classes_in_an_order_of_its_own(save):
    (file := save(named(["cat", "dog"]), label=[0, 1] * 6).folder).rename(file.with_name("train.parquet"))
    save(named(["dog", "cat"]), label=[0, 0, 1] * 4).folder.rename(file.with_name("val.parquet"))
    unnamed = save(None, label=[0, 1, 1] * 4).folder  # takes the names of the first file that has some
    unnamed.rename(file.with_name("test.parquet"))
    data = load_data(DataConfig(name="parquet", folder=file.parent))
    assert data.labels == ("cat", "dog")
    assert data.train.labels.tolist() == [0, 1] * 6
    assert data.validation.labels.tolist() == [1, 1, 0] * 4
    assert data.test.labels.tolist() == [0, 1, 1] * 4


@pytest.mark.parametrize("bound", [1, 2**28])
def test_row_groups_stay_in_memory_up_to_a_bound(save, monkeypatch, bound):
    monkeypatch.setattr(source, "_KEPT_BYTES", bound)
    data = load_data(save())
    for _ in range(2):
        everything(data)
    assert len(data.train.store.kept) == (1 if bound == 1 else 3)


@pytest.mark.parametrize("bound", [0, 2**30])
def test_the_digest_of_large_files_tells_files_apart(save, monkeypatch, bound, picture):
    monkeypatch.setattr(source, "_HASHED_BYTES", bound)
    first = load_data(save()).train.digest()
    assert load_data(save()).train.digest() == first
    assert load_data(save(image=[png(picture([9, 20 * i, 4])) for i in range(12)])).train.digest() != first


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"image": None}, r"pets\.parquet has no column 'image'; choose from label; see data\.options"),
        ({"label": None}, r"pets\.parquet has no column 'label'; choose from image; see data\.options"),
        ({"options": {"label": "class"}}, r"pets\.parquet has no column 'class'; choose from image, label"),
        ({"image": ["a.png"] * 12}, "column 'image' is string; give encoded images as bytes, or a struct with them"),
        ({"label": ["cat", None] * 6}, "row 1 has no 'label'; leave the row out"),
        (
            {"metadata": named(["cat"]), "label": [0] * 12},
            "a classifier needs at least two",
        ),
        (
            {"metadata": named(["cat", "dog"]), "label": [0, 2] * 6},
            "has the label '2' in train, but its classes are 0 to 1: cat, dog; mend the labels",
        ),
        ({"image": [b"no image"] * 12}, r"cannot read the image \d+ in .*pets\.parquet .*repair or remove it"),
    ],
)
def test_what_is_wrong_with_a_file_is_one_error(save, changes, problem):
    with pytest.raises(DataError, match=problem):
        everything(load_data(save(**changes)))


@pytest.mark.parametrize("kept", [0, 10, 500, -20])
def test_a_file_that_is_cut_short_is_one_error(save, kept):
    config = save()
    config.folder.write_bytes(config.folder.read_bytes()[:kept])
    with pytest.raises(DataError, match=r"cannot read .*pets\.parquet \(.*\); fetch it again"):
        load_data(config)


def test_a_row_without_an_image_is_one_error(save, picture):
    images = [png(picture([20 * i, 90, 40])) for i in range(11)]
    with pytest.raises(DataError, match=r"the image 11 in .*pets\.parquet is empty; leave its row out"):
        everything(load_data(save(image=[*images, None])))
