import numpy as np
import pytest
import torch

from ofa.core.errors import DataError
from ofa.data.config import DataConfig
from ofa.data.load import load_data


def pixels(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def load(tmp_path, **arrays):
    np.savez(tmp_path / "shades.npz", **arrays)
    return load_data(DataConfig(name="arrays", folder=tmp_path / "shades.npz"))


LABELS = np.arange(12) % 3


@pytest.mark.parametrize("names", ["{}_images {}_labels", "x_{} y_{}"])
def test_arrays_go_by_the_names_that_people_give_them(tmp_path, names):
    named = {}
    for i, split in enumerate(("train", "val", "test")):
        images, labels = names.format(split, split).split()
        named |= {images: pixels(12, 5, 4, seed=i), labels: LABELS}
    data = load(tmp_path, **named)
    for images, array in zip((data.train, data.validation, data.test), list(named.values())[::2], strict=True):
        assert np.array_equal(np.stack([image.numpy()[0] for image, _ in (images[i] for i in range(12))]), array)
        assert images.labels.tolist() == LABELS.tolist()
    assert (data.name, data.labels) == ("shades", ("0", "1", "2"))


@pytest.mark.parametrize("shape", [(5, 6, 3), (3, 5, 6), (5, 6), (5, 6, 1), (1, 5, 6)])
def test_channels_may_come_first_or_last(tmp_path, shape):
    images = pixels(12, *shape)
    data = load(tmp_path, images=images, labels=LABELS[:, None])
    read = {label: image for image, label in (data.train[i] for i in range(len(data.train)))}
    assert {tuple(image.shape) for image in read.values()} == {(3, 5, 6)}
    moved = np.moveaxis(images, 1, -1) if shape[0] in (1, 3) else images.reshape(12, 5, 6, -1)
    position = int(data.train.positions[0])
    expected = torch.from_numpy(np.broadcast_to(moved[position], (5, 6, 3)).copy()).permute(2, 0, 1)
    assert torch.equal(data.train[0][0], expected)


def test_what_is_not_compressed_stays_on_disk(tmp_path):
    data = load(tmp_path, images=np.asfortranarray(pixels(12, 5, 4)), labels=LABELS)
    base = data.train.store.images
    while base is not None and not isinstance(base, np.memmap):
        base = base.base
    assert base is not None


ROWS = {"images": pixels(12, 5, 4), "labels": LABELS}


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"labels": LABELS[:9]}, r"train has images of shape \[12, 5, 4\] and 9 labels; give images \[n, h, w\]"),
        ({"images": pixels(12, 5)}, r"train has images of shape \[12, 5\] and 12 labels"),
        ({"images": pixels(12, 5, 4) / 255.0}, r"its values are float64; scale them to uint8, from 0 to 255"),
        ({"images": pixels(12, 5, 4, 2)}, r"its shape is \[5, 4, 2\]; give \[h, w\], \[h, w, c\] or"),
        ({"labels": LABELS / 2}, r"labels for train are float64 \[12\]; give an integer or a text each"),
        ({"labels": np.eye(12)}, r"labels for train are float64 \[12, 12\]; give an integer or a text each"),
        ({"labels": np.array(["a", None] * 6, dtype=object)}, r"cannot read the arrays in .*holds Python objects"),
        ({"train_images": pixels(12, 5, 4)}, "has two arrays of images for train, one is 'train_images'"),
        ({"val_images": pixels(12, 5, 4)}, "has no array of labels for validation; call arrays images and labels"),
        ({"weights": LABELS}, "an array is called 'weights'; call arrays images and labels, or train_images"),
        ({"test_x": pixels(2, 5, 4), "test_y": np.array([0, 7])}, "has images of class '7' in test but none in train"),
    ],
)
def test_what_is_wrong_with_arrays_is_one_error(tmp_path, changes, problem):
    with pytest.raises(DataError, match=problem):
        load(tmp_path, **(ROWS | changes))


@pytest.mark.parametrize("kept", [0, 40, 400, -30])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_file_that_is_cut_short_is_one_error(tmp_path, kept, save):
    save(tmp_path / "shades.npz", **ROWS)
    whole = (tmp_path / "shades.npz").read_bytes()
    (tmp_path / "shades.npz").write_bytes(whole[:kept])
    with pytest.raises(DataError, match=r"cannot read the arrays in .*shades\.npz .*save them again with numpy\.savez"):
        load_data(DataConfig(name="arrays", folder=tmp_path))
