import pytest

from ofa.core.errors import DataError
from ofa.data.config import DataConfig
from ofa.data.load import load_data

datasets = pytest.importorskip("datasets")
NAMES = ["cat", "dog"]


@pytest.fixture
def save(tmp_path, picture):
    """Writes a data set with a test split: `save(test_labels, train_type, test_type)` returns its configuration."""

    def write(test_labels, train_type, test_type):
        parts = {}
        for split, labels, kind in (("train", [0, 1] * 6, train_type), ("test", test_labels, test_type)):
            features = datasets.Features({"image": datasets.Image(), "label": kind})
            images = [picture([20 * i, 90, 40]) for i in range(len(labels))]
            parts[split] = datasets.Dataset.from_dict({"image": images, "label": labels}, features=features)
        datasets.DatasetDict(parts).save_to_disk(str(tmp_path))
        return DataConfig(name="huggingface", folder=tmp_path)

    return write


@pytest.mark.parametrize("label", [-1, None])
def test_a_label_of_no_class_is_one_error_that_names_it(save, label):
    named = [datasets.ClassLabel(names=NAMES)] * 2
    with pytest.raises(
        DataError, match=rf"has the label '{label}' in test, but its classes are 0 to 1: cat, dog; .*le"
    ):
        load_data(save([0, 1, label], *named))
    with pytest.raises(DataError, match=rf"'?{label}'? in test"):
        load_data(save([0, 1, label], datasets.Value("int64"), datasets.Value("int64")))


def test_each_split_may_name_its_classes_in_an_order_of_its_own(save):
    train, other = datasets.ClassLabel(names=NAMES), datasets.ClassLabel(names=["dog", "cat", "emu"])
    data = load_data(save([0, 1, 1], train, other))
    assert (data.labels, data.test.labels.tolist()) == (("cat", "dog"), [1, 0, 0])
    with pytest.raises(DataError, match="images of class 'emu' in test but none in train"):
        load_data(save([0, 1, 2], train, other))


def test_labels_are_those_of_the_classes_whatever_format_was_saved(save):
    config = save([1, 0, 1], *[datasets.ClassLabel(names=NAMES)] * 2)
    assert load_data(config).test.labels.tolist() == [1, 0, 1]
    parts = datasets.load_from_disk(str(config.folder)).with_format("numpy")
    parts.save_to_disk(str(config.folder / "numpy"))
    data = load_data(DataConfig(name="huggingface", folder=config.folder / "numpy"))
    assert (data.labels, data.test.labels.tolist()) == (("cat", "dog"), [1, 0, 1])
