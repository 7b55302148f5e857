import gzip
import struct

import numpy as np
import pytest
import torch

from ofa.core.errors import DataError
from ofa.data.config import DataConfig
from ofa.data.load import load_data
from ofa.data.sources import fashion_mnist


def all_pixels(images):
    return [tuple(image.flatten().tolist()) for image, _ in images]


def all_labels(images):
    return np.array([label for _, label in images])


def idx(array):
    header = b"\x00\x00\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return header + array.astype(np.uint8).tobytes()


@pytest.fixture
def fashion(tmp_path):
    rng = np.random.default_rng(0)
    arrays = {}
    for part, n in (("train", 60), ("t10k", 20)):
        arrays[f"{part}-images-idx3-ubyte"] = rng.integers(0, 256, size=(n, 28, 28))
        arrays[f"{part}-labels-idx1-ubyte"] = np.arange(n) % 10
    for name, array in arrays.items():
        (tmp_path / name).write_bytes(idx(array))
    return tmp_path, arrays


def fashion_config(folder):
    return DataConfig(name="fashion_mnist", folder=folder)


@pytest.mark.parametrize("zipped", [False, True])
def test_pixels_and_labels_are_those_of_the_files(fashion, zipped):
    folder, arrays = fashion
    if zipped:
        for path in list(folder.iterdir()):
            path.with_name(f"{path.name}.gz").write_bytes(gzip.compress(path.read_bytes()))
            path.unlink()
    data = load_data(fashion_config(folder))
    assert data.labels[:2] == ("T-shirt/top", "Trouser")
    assert len(data.labels) == 10
    test = torch.from_numpy(arrays["t10k-images-idx3-ubyte"].astype(np.uint8))[:, None]
    assert torch.equal(torch.stack([image for image, _ in data.test]), test)
    assert all_labels(data.test).tolist() == [i % 10 for i in range(20)]
    label_of = {tuple(image.flatten()): i % 10 for i, image in enumerate(arrays["train-images-idx3-ubyte"])}
    for split, n in ((data.validation, 10), (data.train, 50)):
        assert len(split) == n
        assert [label_of[pixels] for pixels in all_pixels(split)] == all_labels(split).tolist()
    assert len({*all_pixels(data.train), *all_pixels(data.validation)}) == 60


def test_a_missing_folder_or_file_is_refused(fashion):
    folder, _ = fashion
    with pytest.raises(DataError, match=r"no folder .*nowhere; give the folder of the Fashion-MNIST IDX files"):
        load_data(fashion_config(folder / "nowhere"))
    (folder / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match=r"has neither t10k-labels-idx1-ubyte nor t10k-labels-idx1-ubyte\.gz"):
        load_data(fashion_config(folder))


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: b"",
        lambda whole: whole[:2],
        lambda whole: whole[:9],
        lambda whole: whole[:-1],
        lambda whole: b"\x00\x00\x0d" + whole[3:],
        lambda whole: whole + b"\x00",
    ],
)
def test_a_broken_idx_file_is_refused(fashion, damage, zipped):
    folder, _ = fashion
    path = folder / "train-images-idx3-ubyte"
    content = damage(path.read_bytes())
    path.unlink()
    path.with_name(f"{path.name}.gz" if zipped else path.name).write_bytes(
        gzip.compress(content) if zipped else content
    )
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte is not a readable IDX file .*; fetch it again"):
        load_data(fashion_config(folder))


def test_a_broken_gzip_file_is_refused(fashion):
    folder, _ = fashion
    path = folder / "train-labels-idx1-ubyte"
    whole = gzip.compress(path.read_bytes())
    path.unlink()
    middle = len(whole) // 2
    for content in (whole[:middle], whole[:12] + b"\xff" * 8 + whole[20:], b"plain", whole[:-8] + bytes(8)):
        (folder / f"{path.name}.gz").write_bytes(content)
        with pytest.raises(DataError, match="is not a readable IDX file"):
            load_data(fashion_config(folder))


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("train-labels-idx1-ubyte", np.arange(59) % 10),
        ("train-labels-idx1-ubyte", np.arange(70) % 10),
        ("train-labels-idx1-ubyte", np.zeros((60, 28, 28))),
        ("t10k-images-idx3-ubyte", np.zeros((20, 784))),
        ("t10k-labels-idx1-ubyte", np.arange(20)),
        ("train-images-idx3-ubyte", np.zeros((60, 0, 28))),
    ],
)
def test_idx_files_that_do_not_fit_each_other_are_refused(fashion, name, array):
    folder, _ = fashion
    (folder / name).write_bytes(idx(array))
    with pytest.raises(
        DataError, match=f"{name.split('-')[0]} has images of shape .* and a label from 0 to 9 for each"
    ):
        load_data(fashion_config(folder))


def test_files_without_images_are_refused(fashion):
    folder, _ = fashion
    (folder / "t10k-images-idx3-ubyte").write_bytes(idx(np.zeros((0, 28, 28))))
    (folder / "t10k-labels-idx1-ubyte").write_bytes(idx(np.zeros(0)))
    with pytest.raises(DataError, match=r"t10k has images of shape \(0, 28, 28\) and labels of shape \(0,\)"):
        load_data(fashion_config(folder))


def test_a_class_of_too_few_images_is_refused(fashion):
    folder, arrays = fashion
    labels = arrays["train-labels-idx1-ubyte"].copy()
    labels[labels == 9] = 8
    labels[9] = 9
    (folder / "train-labels-idx1-ubyte").write_bytes(idx(labels))
    with pytest.raises(DataError, match="class 'Ankle boot' has too few images to split"):
        load_data(fashion_config(folder))


def test_a_download_that_fails_says_where_to_get_the_files(monkeypatch, tmp_path):
    class Offline:
        classes = fashion_mnist.FashionMNIST.classes

        def __init__(self, root, download):
            raise RuntimeError(f"cannot download to {root}: {download}")

    monkeypatch.setattr(fashion_mnist, "DEBIAN_FASHION_MNIST", tmp_path / "nowhere")
    monkeypatch.setattr(fashion_mnist, "FashionMNIST", Offline)
    with pytest.raises(DataError, match=r"cannot be downloaded .* install Debian's package .* as data\.folder"):
        load_data(DataConfig(name="fashion_mnist"))
