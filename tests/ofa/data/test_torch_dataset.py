from dataclasses import dataclass

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch.utils.data import Dataset, TensorDataset, random_split

import ofa
from ofa.core.errors import DataError
from ofa.data.dataset import Data
from ofa.data.torch_dataset import dataset_images, labels_of

PIXELS = (load_digits().images * (255 / 16)).round().astype(np.uint8)[:60]
LABELS = load_digits().target[:60]


@dataclass
class Items(Dataset):
    """A data set that makes its items by a function of the pixels `[8, 8]` and the label."""

    make: object

    def __len__(self):
        return len(LABELS)

    def __getitem__(self, i):
        return self.make(PIXELS[i], int(LABELS[i]))


@pytest.mark.parametrize(
    "make",
    [
        lambda pixels, label: (Image.fromarray(pixels), label),
        lambda pixels, label: (pixels, label),
        lambda pixels, label: (pixels[:, :, None], np.int64(label)),
        lambda pixels, label: (torch.from_numpy(pixels), torch.tensor(label)),
        lambda pixels, label: [torch.from_numpy(pixels)[None], label],
        lambda pixels, label: (torch.from_numpy(pixels)[None] / 255, label),
        lambda pixels, label: (pixels / 255, label),
        lambda pixels, label: {"image": Image.fromarray(pixels), "label": label},
    ],
)
def test_items_may_be_pictures_arrays_or_tensors(make):
    images = dataset_images(Items(make))
    assert images.labels.tolist() == LABELS.tolist()
    for i in (0, 7, 59):
        image, label = images[i]
        assert torch.equal(image, torch.from_numpy(PIXELS[i])[None])
        assert label == LABELS[i]


@pytest.mark.parametrize(
    "make",
    [
        lambda pixels, label: (Image.fromarray(pixels).convert("RGBA"), label),
        lambda pixels, label: (np.repeat(pixels[:, :, None], 3, axis=2), label),
        lambda pixels, label: (torch.from_numpy(pixels).expand(3, 8, 8), label),
    ],
)
def test_color_is_color(make):
    image, _ = dataset_images(Items(make))[5]
    assert torch.equal(image, torch.from_numpy(PIXELS[5]).expand(3, 8, 8))


def test_images_may_have_different_sizes():
    images = dataset_images(Items(lambda pixels, label: (pixels[: 3 + label % 5], label)))
    assert {tuple(images[i][0].shape) for i in range(60)} == {(1, height, 8) for height in range(3, 8)}


def test_labels_are_read_from_the_data_set_where_it_has_them():
    images = Items(lambda *_: pytest.fail("an item was read"))
    images.targets = LABELS.tolist()
    assert labels_of(images).tolist() == LABELS.tolist()
    part, other = random_split(images, [20, 40], torch.Generator().manual_seed(0))
    assert labels_of(part).tolist() == LABELS[part.indices].tolist()
    assert sorted([*part.indices, *other.indices]) == list(range(60))


@pytest.mark.parametrize(
    ("make", "problem"),
    [
        (
            lambda pixels, label: (torch.randn(1, 8, 8), label),
            r"image 0 of Items \(its values are float32",
        ),
        (lambda pixels, label: (pixels.astype(np.int32), label), "its values are int32; scale them to uint8"),
        (lambda pixels, label: (pixels[0], label), r"its shape is \[8\]; give \[h, w\], \[h, w, c\]"),
        (lambda pixels, label: ("a.png", label), "its values are <U5"),
        (lambda pixels, label: pixels, "an item is a ndarray; give pairs of an image and a label"),
        (
            lambda pixels, label: (pixels, float(label)),
            r"the labels of Items are float64 \[60\], such as \[0\.0\]; give one integer",
        ),
        (lambda pixels, label: (pixels, label - 1), r"the labels of Items are int64 \[60\], such as \[-1\]; give"),
        (lambda pixels, label: (pixels, label or None), r"the labels of Items are object \[60\], such as \[None\];"),
        (lambda pixels, label: (pixels, str(label)), "the labels of Items are <U1"),
        (lambda pixels, label: (pixels, [label]), r"the labels of Items are int64 \[60, 1\]"),
    ],
)
def test_what_is_wrong_with_items_is_one_error(make, problem):
    with pytest.raises(DataError, match=problem):
        dataset_images(Items(make))


def test_an_empty_data_set_is_one_error():
    with pytest.raises(DataError, match="TensorDataset has no items; give at least one"):
        dataset_images(TensorDataset(torch.zeros(0, 1, 8, 8)))


def test_a_supernet_trains_on_any_data_set(tmp_path):
    parts = random_split(Items(lambda pixels, label: (Image.fromarray(pixels), label)), [40, 10, 10])
    data = Data(train=parts[0], validation=parts[1], test=parts[2], labels=tuple("0123456789"))
    assert (data.name, data.in_channels, len(data.train)) == ("data", 1, 40)
    options = {"num_classes": 10, "in_channels": 1, "resolutions": [12], "width_mult": 0.5}
    supernet = ofa.Supernet(ofa.create_family("small_mobilenet_v3", **options), seed=0)
    phases = [{"strategy": "sandwich", "epochs": 1}]
    ofa.train(supernet, data, ofa.TrainConfig(phases=phases, batch_size=20, validated_archs=0), folder=tmp_path)
    assert data.info.n_train == 40
    assert Data(train=parts[0], validation=parts[1], test=parts[2]).info.digest == data.info.digest


def test_a_label_outside_the_classes_is_one_error():
    images = Items(lambda pixels, label: (pixels, label))
    with pytest.raises(DataError, match="has the label 9 in train, but 2 classes: a, b; mend the labels, or name all"):
        Data("pets", ("a", "b"), train=images, validation=images, test=images)
