import struct

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from ofa.core.errors import DataError
from ofa.data.config import DataConfig
from ofa.data.load import load_data

PIXELS = (load_digits().images * (255 / 16)).round().astype(np.uint8)
LABELS = load_digits().target.astype(np.uint8)


@pytest.fixture
def mnist(tmp_path):
    """A folder in which torchvision finds its MNIST: handwritten digits as IDX files."""
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for name, part in (("train", slice(0, 200)), ("t10k", slice(200, 260))):
        images, labels = PIXELS[part], LABELS[part]
        header = struct.pack(">HBB3I", 0, 8, 3, *images.shape)
        (raw / f"{name}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        (raw / f"{name}-labels-idx1-ubyte").write_bytes(struct.pack(">HBBI", 0, 8, 1, len(labels)) + labels.tobytes())
    return tmp_path


def test_splits_are_those_of_torchvision_and_others_come_from_the_training_images(mnist):
    data = load_data(DataConfig(name="torchvision:MNIST", folder=mnist, in_channels=1, validation_percent=10.0))
    assert data.labels[3] == "3 - three"
    assert (len(data.train) + len(data.validation), len(data.test)) == (200, 60)
    for i in (0, 59):
        image, label = data.test[i]
        assert torch.equal(image, torch.from_numpy(PIXELS[200 + i])[None])
        assert label == LABELS[200 + i]


@pytest.mark.parametrize(("part", "split"), [("train", "train"), ("t10k", "test")])
def test_a_label_of_no_class_is_one_error_that_names_it(mnist, part, split):
    path = mnist / "MNIST" / "raw" / f"{part}-labels-idx1-ubyte"
    path.write_bytes(path.read_bytes()[:-1] + bytes([10]))
    with pytest.raises(DataError, match=f"'MNIST' has the label 10 in {split}, but 10 classes: 0 - zero"):
        load_data(DataConfig(name="torchvision:MNIST", folder=mnist, in_channels=1))


def test_options_are_passed_on(mnist):
    with pytest.raises(DataError, match=r"torchvision's MNIST cannot be loaded from .*unexpected keyword argument 'a'"):
        load_data(DataConfig(name="torchvision:MNIST", folder=mnist, options={"a": 1}))


def test_an_unknown_set_or_a_missing_one_is_one_error(tmp_path):
    with pytest.raises(DataError, match=r"torchvision has no data set 'MNISTT'; did you mean MNIST"):
        load_data(DataConfig(name="torchvision:MNISTT"))
    options = {"download": False}
    with pytest.raises(DataError, match=r"torchvision's CIFAR10 cannot be loaded from .*Dataset not found"):
        load_data(DataConfig(name="torchvision:CIFAR10", folder=tmp_path, options=options))
