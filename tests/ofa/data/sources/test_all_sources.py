"""What holds for every source: the same pictures give the same data, wherever they lie."""

from contextlib import suppress

import numpy as np
import pytest
import torch

import ofa
from ofa.core.errors import DataError
from ofa.data.config import DataConfig
from ofa.data.load import list_data, load_data
from ofa.data.loaders import train_batches
from ofa.train.config import TrainConfig
from tests.ofa.data.sources.conftest import CLASSES, WRITERS, Pictures

KINDS = pytest.mark.parametrize("kind", WRITERS)


@KINDS
def test_every_source_reads_the_pictures_in_order_with_their_labels(write, pictures, kind):
    data = load_data(write(kind))
    assert data.labels == CLASSES
    for images, pairs in zip((data.train, data.validation, data.test), pictures.splits.values(), strict=True):
        assert len(images) == len(pairs)
        assert images.labels.tolist() == [CLASSES.index(name) for _, name in pairs]
        for (image, label), (picture, name) in zip((images[i] for i in range(len(images))), pairs, strict=True):
            assert torch.equal(image, torch.from_numpy(np.array(picture))[None])
            assert CLASSES[label] == name


@KINDS
@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_the_same_from_every_source_and_any_number_of_workers(write, kind, workers):
    reference, data = (load_data(write(one)) for one in ("csv" if kind == "image_folder" else "image_folder", kind))
    options = {"resolution": lambda _: 12, "batch_size": 7, "seed": 3, "steps": range(3, 8)}
    augment = DataConfig(name="digits").augment
    batches = zip(
        train_batches(reference, augment, **options),
        train_batches(data, augment, workers=workers, **options),
        strict=True,
    )
    assert all(torch.equal(a, b) for pair in batches for a, b in zip(*pair, strict=True))


@KINDS
def test_the_digest_changes_with_a_label_and_with_a_picture(write, kind):
    images = load_data(write(kind)).train
    again = images.subset(np.arange(len(images)))
    assert again.digest() == images.digest()
    assert images.subset(np.arange(len(images))[::-1].copy()).digest() != images.digest()
    other = images.subset(np.array([0, 0, *range(2, len(images))]))  # the second picture is the first one
    assert other.digest() != images.digest()


@KINDS
def test_color_is_read_where_it_is_asked_for(write, kind):
    config = write(kind)
    data = load_data(DataConfig(**{**config.model_dump(exclude={"augment"}), "in_channels": 3}))
    image, _ = data.train[0]
    assert image.shape == (3, 8, 8)
    assert torch.equal(image[0], image[2])


@pytest.mark.parametrize("label", ["-1", None, "3"])
@pytest.mark.parametrize("kind", ["csv", "npz", "compressed npz", "npy", "webdataset", "parquet"])
def test_a_test_picture_without_a_class_of_the_training_pictures_is_one_error(tmp_path, pictures, kind, label):
    """Data sets mark unlabeled pictures by -1; see test_huggingface.py for those that number their classes."""
    number = {name: str(i) for i, name in enumerate(CLASSES)}
    splits = {split: [(picture, number[name]) for picture, name in pairs] for split, pairs in pictures.splits.items()}
    splits["test"][4] = splits["test"][4][0], label
    problem = "needs a value|[oO]bject|no 'label'|no label" if label is None else f"class '{label}' in test"
    with pytest.raises(DataError, match=problem):
        load_data(DataConfig(**WRITERS[kind](tmp_path / "digits", Pictures(splits)), in_channels=1))


def test_every_registered_source_is_tried_here_or_elsewhere():
    elsewhere = {"arrays", "digits", "emoji", "fashion_mnist"}
    assert set(list_data()) == {*(kind for kind in WRITERS if "np" not in kind), *elsewhere}


@pytest.mark.parametrize("name", ["image_folder", "csv", "arrays", "webdataset", "parquet"])
@pytest.mark.parametrize("folder", [None, "nowhere"])
def test_a_missing_folder_is_one_error_that_names_the_key(tmp_path, name, folder):
    config = DataConfig(name=name, folder=folder and tmp_path / folder)
    with pytest.raises(DataError, match=r"^no (file or )?folder (None|.*nowhere); set data\.folder to a"):
        load_data(config)


@pytest.mark.parametrize("name", ["csv", "webdataset", "parquet", "arrays"])
def test_an_empty_folder_is_one_error_that_says_which_files_are_missing(tmp_path, name):
    with pytest.raises(DataError, match=r"(no file \*\.\w+ in|holds no \.npy and no \.npz file)"):
        load_data(DataConfig(name=name, folder=tmp_path))


def test_an_unknown_source_or_option_is_one_error_that_says_what_there_is():
    with pytest.raises(DataError, match=r"unknown data set 'image_foldr'; did you mean image_folder\?; or torchvisi"):
        load_data(DataConfig(name="image_foldr"))
    with pytest.raises(DataError, match=r"data set 'csv' has no option 'labels'; did you mean label"):
        load_data(DataConfig(name="csv", options={"labels": "x"}))


def trained(config, folder, workers=0, stop_at=None):
    """The weights that a source's pictures give in two epochs, stopped after a step and started again if asked to."""
    options = {"num_classes": 3, "in_channels": 1, "resolutions": [12], "width_mult": 0.5}
    family = ofa.create_family("small_mobilenet_v3", **options)
    phases = [{"strategy": "sandwich", "epochs": 2}]
    settings = TrainConfig(phases=phases, batch_size=6, validated_archs=0, checkpoint_seconds=0.0)

    def progress(done, *_):
        if done == stop_at:
            raise InterruptedError

    for on_progress in (progress, lambda *_: None) if stop_at else (progress,):
        supernet = ofa.Supernet(family, seed=0)
        with suppress(InterruptedError):
            ofa.train(
                supernet, load_data(config), settings, folder=folder, seed=0, workers=workers, on_progress=on_progress
            )
    return supernet.state_dict()


@pytest.mark.slow
def test_the_same_pictures_train_the_same_weights_from_every_source_killed_in_mid_epoch_or_not(write, tmp_path):
    weights = []
    for kind in ("image_folder", "csv", "npz", "webdataset", "parquet"):
        config = write(kind)
        weights.append(trained(config, tmp_path / f"{kind} whole"))
        weights.append(trained(config, tmp_path / f"{kind} killed", workers=2, stop_at=5))
    for other in weights[1:]:
        assert all(torch.equal(tensor, other[name]) for name, tensor in weights[0].items())
