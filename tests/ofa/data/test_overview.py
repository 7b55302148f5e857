from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from ofa.data.config import AugmentConfig, DataConfig
from ofa.data.dataset import Data
from ofa.data.images import TensorImages
from ofa.data.load import load_data
from ofa.data.loaders import train_batches
from ofa.data.overview import findings, overview
from ofa.data.sheet import sheet


def images(counts, seed=0):
    labels = np.repeat(np.arange(len(counts)), counts)
    pixels = torch.randint(256, (len(labels), 1, 6, 5), generator=torch.Generator().manual_seed(seed)).byte()
    return TensorImages(pixels, torch.from_numpy(labels))


def made(train, test=None):
    return Data(
        "pets", ("cat", "dog", "emu"), train=train, validation=images([2] * 3, 1), test=test or images([2] * 3, 2)
    )


def test_images_are_counted_by_split_and_class(digits):
    seen = overview(digits)
    assert seen["images"] == {
        "train": len(digits.train),
        "validation": len(digits.validation),
        "test": len(digits.test),
    }
    for i, (name, counts) in enumerate(seen["classes"].items()):
        assert name == digits.labels[i]
        assert counts == {split: (getattr(digits, split).labels == i).sum().item() for split in counts}
    assert (seen["height"], seen["width"], seen["channels"]) == ([8] * 3, [8] * 3, 1)
    assert seen["findings"] == []


def test_one_image_in_two_splits_is_said():
    train = images([5, 5, 5])
    test = TensorImages(
        torch.cat([images([2] * 3, 2).images, train.images[3:5]]), torch.tensor([0, 0, 1, 1, 2, 2, 0, 0])
    )
    (said,) = findings(made(train, test=test))
    assert said.startswith("2 images of test are in train, too, such as number ")
    assert said.endswith("accuracies on test will be too high; remove them from one of the two")


def test_files_with_equal_ends_are_not_taken_for_equal(tmp_path):
    for split in ("train", "test"):
        for name in ("cat", "dog"):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(5):
                pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
                pixels[30, :, 0] = 7 * i + (name == "dog") + 2 * (split == "test")  # in the middle of the file
                Image.fromarray(pixels).save(tmp_path / split / name / f"{i}.bmp")
    data = load_data(DataConfig(name="image_folder", folder=tmp_path))
    assert len(np.intersect1d(data.train.fingerprints, data.test.fingerprints)) == 1
    assert findings(data) == []
    (tmp_path / "test" / "cat" / "3.bmp").write_bytes((tmp_path / "train" / "cat" / "0.bmp").read_bytes())


def test_a_copied_file_is_named(tmp_path, fill):
    fill(tmp_path / "train")
    fill(tmp_path / "test", n=5)
    for path in (tmp_path / "test").glob("*/*.png"):
        with Image.open(path) as image:
            Image.fromarray(255 - np.asarray(image)).save(path)
    (tmp_path / "test" / "dog" / "1.png").write_bytes((tmp_path / "train" / "cat" / "7.png").read_bytes())
    data = load_data(DataConfig(name="image_folder", folder=tmp_path, validation_percent=10.0))
    assert any("1 images of test are in" in said and "test/dog/1.png" in said for said in findings(data))


def test_empty_and_very_uneven_classes_are_said():
    data = made(images([50, 50, 4]), test=images([2, 0, 2], 2))
    assert findings(data) == [
        "class 'dog' has no images in test",
        "class 'cat' has 50 training images, 'emu' has 4; data.sampler: balanced trains as many of "
        "each, train.class_weights: balanced weighs them the same",
    ]
    assert findings(replace(data, sampler="balanced")) == ["class 'dog' has no images in test"]
    assert findings(data, weighed=True) == ["class 'dog' has no images in test"]
    assert findings(made(images([40, 50, 5]))) == []


@pytest.mark.parametrize("seed", range(3))
def test_a_balanced_epoch_has_as_many_images_of_each_class(seed):
    data = replace(made(images([50, 30, 4])), sampler="balanced")
    options = {"resolution": lambda _: 6, "batch_size": 84, "seed": seed}
    epochs = [
        next(train_batches(data, AugmentConfig(), steps=range(epoch, epoch + 1), **options))[1] for epoch in (0, 0, 1)
    ]
    assert torch.equal(epochs[0], epochs[1])
    assert not torch.equal(epochs[0], epochs[2])
    for labels in epochs:
        assert np.bincount(labels).tolist() == [28, 28, 28]


def test_a_balanced_epoch_repeats_no_image_before_all_of_its_class_came():
    data = replace(made(images([20, 9, 4])), sampler="balanced")
    whole = AugmentConfig(scale=(1.0, 1.0), ratio=(1.0, 1.0))
    options = {"resolution": lambda _: 5, "batch_size": 33, "seed": 0, "steps": range(1)}
    ((pixels, labels),) = train_batches(data, whole, **options)
    for label, n in enumerate((20, 9, 4)):
        _, counts = np.unique(pixels[labels == label].flatten(1).numpy(), axis=0, return_counts=True)
        assert len(counts) == min(n, 11)
        assert counts.max() - counts.min() <= 1


@pytest.mark.parametrize("erase", [0.0, 1.0])
def test_the_sheet_shows_up_to_ten_classes_as_they_are_seen(digits, erase):
    drawn = sheet(digits, AugmentConfig(erase=erase), resolution=16)
    assert drawn.mode == "RGB"
    pixels = np.asarray(drawn)
    rows = (pixels[:, 6 : 6 + 96].std(axis=(1, 2)) > 20).sum()
    assert rows > 10 * 80  # ten rows of pictures
    three = made(images([3, 3, 3]))
    assert sheet(three, AugmentConfig(), 8).height < drawn.height / 2
