import gzip
import struct
from itertools import product

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from ofa.core.errors import DataError
from ofa.data.config import DataConfig
from ofa.data.load import load_data

DIGITS = DataConfig(name="digits")


@pytest.fixture(scope="module")
def digits():
    return load_data(DIGITS)


def all_pixels(images):
    return [tuple(image.flatten().tolist()) for image, _ in images]


def all_labels(images):
    return np.array([label for _, label in images])


# Splits


def test_digits_splits_hold_every_image_once(digits):
    splits = (digits.train, digits.validation, digits.test)
    plain = [tuple(np.rint(image.flatten() * (255 / 16)).astype(int).tolist()) for image in load_digits().images]
    together = [pixels for split in splits for pixels in all_pixels(split)]
    assert sorted(together) == sorted(plain)
    assert len(set(plain)) == len(plain)  # so no image is in two splits


def test_digits_keep_their_labels(digits):
    known = dict(
        zip((tuple(image.flatten().tolist()) for image in load_digits().images), load_digits().target, strict=True)
    )
    for image, label in digits.validation:
        assert known[tuple(np.rint(image.numpy().flatten() * (16 / 255)).tolist())] == label
    assert digits.labels == tuple("0123456789")


def test_splits_are_stratified(digits):
    everything = np.bincount(load_digits().target)
    rest = everything.copy()
    for split, percent in ((digits.test, 20), (digits.validation, 15)):
        counts = np.bincount(all_labels(split), minlength=10)
        assert np.abs(counts - rest * percent / 100).max() <= 0.5
        rest -= counts
    assert np.array_equal(np.bincount(all_labels(digits.train)), rest)


@pytest.mark.parametrize("percent", [1.0, 40.0])
def test_every_class_is_in_every_split(percent):
    data = load_data(DataConfig(name="digits", test_percent=percent, validation_percent=percent))
    for split in (data.train, data.validation, data.test):
        assert set(all_labels(split)) == set(range(10))


def test_the_same_configuration_gives_the_same_splits(digits):
    again = load_data(DIGITS)
    for name in ("train", "validation", "test"):
        assert all_pixels(getattr(again, name)) == all_pixels(getattr(digits, name))


# Normalization and size


def test_training_images_are_normalized_to_mean_0_and_spread_1(digits):
    images = torch.stack([image.float() for image, _ in digits.train])
    normal = digits.normalize(images)
    assert abs(normal.double().mean().item()) < 0.02  # mean and std come from 1000 of the images
    assert normal.double().std().item() == pytest.approx(1, abs=0.02)
    plain = (images[3, 0, 2, 5].item() / 255 - digits.mean[0]) / digits.std[0]
    assert normal[3, 0, 2, 5].item() == pytest.approx(plain, rel=1e-5)


# Folders of images


def picture(color, size=(12, 10), mode="RGB"):
    rng = np.random.default_rng(sum(color) + size[0])
    pixels = np.clip(rng.normal(color, 20, size=(size[1], size[0], 3)), 0, 255).astype(np.uint8)
    return Image.fromarray(pixels).convert(mode)


def fill(folder, classes=("cat", "dog"), n=10, mode="RGB"):
    for c, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for i in range(n):
            color = [40, 60, 90]
            color[c % 3] = 200 - i
            picture(color, (12 + i, 10 + c), mode).save(folder / name / f"{i}.png")
    return folder


def folder_config(folder, **options):
    return DataConfig(name="image_folder", folder=folder, **options)


@pytest.mark.parametrize(("mode", "in_channels"), list(product(["RGB", "L", "RGBA", "P"], [1, 3])))
def test_pixels_are_what_pil_reads(tmp_path, mode, in_channels):
    fill(tmp_path / "pets", mode=mode)
    data = load_data(folder_config(tmp_path / "pets", in_channels=in_channels))
    assert (data.name, data.labels, data.in_channels) == ("pets", ("cat", "dog"), in_channels)
    read = {tuple(image.flatten().tolist()): label for image, label in (*data.train, *data.validation, *data.test)}
    assert len(read) == 20
    for label, name in enumerate(data.labels):
        for path in (tmp_path / "pets" / name).iterdir():
            pixels = np.asarray(Image.open(path).convert("RGB" if in_channels == 3 else "L"))
            chw = pixels.transpose(2, 0, 1) if in_channels == 3 else pixels[None]
            assert read[tuple(chw.flatten().tolist())] == label


def test_images_are_split_in_the_asked_shares(tmp_path):
    data = load_data(folder_config(fill(tmp_path / "pets", n=20), test_percent=20.0, validation_percent=25.0))
    for images, per_class in ((data.test, 4), (data.validation, 4), (data.train, 12)):
        assert np.bincount(all_labels(images)).tolist() == [per_class] * 2
    files = [path for split in (data.train, data.validation, data.test) for path, _ in split.files]
    assert len(files) == len(set(files)) == 40


@pytest.mark.parametrize("given", [("validation",), ("test",), ("validation", "test")])
def test_splits_that_are_there_are_kept(tmp_path, given):
    root = tmp_path / "pets"
    for split in ("train", *given):
        fill(root / split)
    data = load_data(folder_config(root))
    for split in given:
        assert {path for path, _ in getattr(data, split).files} == {
            str(path) for path in (root / split).glob("*/*.png")
        }
    made = {"train", "validation", "test"} - set(given)
    files = [path for split in made for path, _ in getattr(data, split).files]
    assert set(files) == {str(path) for path in (root / "train").glob("*/*.png")}
    assert len(files) == 20


def test_three_images_of_a_class_are_enough(tmp_path):
    data = load_data(folder_config(fill(tmp_path / "pets", n=3)))
    assert len(data.train) == len(data.validation) == len(data.test) == 2


@pytest.mark.parametrize("n", [1, 2])
def test_a_class_of_too_few_images(tmp_path, n):
    root = fill(tmp_path / "pets")
    fill(root, classes=["emu"], n=n)
    with pytest.raises(DataError, match="class 'emu' has too few images to split; every class needs at least 3"):
        load_data(folder_config(root))


def test_missing_folders(tmp_path):
    for folder in (None, tmp_path / "nowhere"):
        with pytest.raises(DataError, match=r"no folder .*set data\.folder to a folder with one folder of images per"):
            load_data(folder_config(folder))
    for made in ("flat", "flat/cat"):  # no classes, then a class without images
        (tmp_path / made).mkdir()
        with pytest.raises(DataError, match="flat is not a folder with one folder of images per class"):
            load_data(folder_config(tmp_path / "flat"))


def test_a_single_class(tmp_path):
    with pytest.raises(DataError, match=r"has the classes \('cat',\); a classifier needs at least two"):
        load_data(folder_config(fill(tmp_path / "pets", classes=["cat"])))


def test_other_classes_in_a_split(tmp_path):
    fill(tmp_path / "pets" / "train")
    fill(tmp_path / "pets" / "validation", classes=["cat", "emu"])
    with pytest.raises(DataError, match=r"validation has the classes \['cat', 'emu'\], but .* \['cat', 'dog'\]"):
        load_data(folder_config(tmp_path / "pets"))


def test_images_of_one_color(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(3):
            Image.new("RGB", (8, 8), (9, 9, 9)).save(tmp_path / name / f"{i}.png")
    with pytest.raises(DataError, match="has a constant channel"):
        load_data(folder_config(tmp_path))


def big_bmp(_):
    return b"BM" + struct.pack("<IHHI", 54, 0, 0, 54) + struct.pack("<IiiHHIIiiII", 40, 10**6, 10**6, 1, 24, *[0] * 6)


@pytest.mark.parametrize(
    "damage",
    [
        lambda whole: b"",
        lambda whole: whole[:10],
        lambda whole: whole[:30],
        lambda whole: whole[:-60],
        lambda whole: b"no image at all",
        big_bmp,
    ],
)
def test_a_broken_image(tmp_path, damage):
    path = fill(tmp_path / "pets") / "dog" / "3.png"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=r"cannot read the image .*dog/3\.png .*mend or remove it"):
        load_data(folder_config(tmp_path / "pets"))


def test_images_of_more_than_8_bits_are_refused_as_pillow_would_clip_them(tmp_path):
    path = fill(tmp_path / "pets") / "dog" / "3.png"
    Image.fromarray((np.arange(64 * 64).reshape(64, 64) * 16).astype(np.uint16)).save(path)
    with pytest.raises(DataError, match=r"cannot read the image .*dog/3\.png \(its mode is I;16; scale it to 8 bits"):
        load_data(folder_config(tmp_path / "pets"))


@pytest.mark.filterwarnings("ignore")  # Pillow also warns of what it finds
@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "webp", "tif"])
def test_whatever_bytes_change_an_image_is_read_or_refused(tmp_path, suffix):
    data = load_data(folder_config(fill(tmp_path / "pets")))
    rng, path = np.random.default_rng(0), tmp_path / f"a.{suffix}"
    picture([40, 60, 90], (32, 32)).save(path)
    whole, refused = path.read_bytes(), 0
    images = type(data.train)(((str(path), 0),), in_channels=3)
    for _ in range(150):
        changed = bytearray(whole[: rng.integers(1, len(whole) + 1)] if rng.random() < 0.3 else whole)
        for position in rng.integers(0, len(changed), size=rng.integers(1, 4)):
            changed[position] = rng.integers(256)
        path.write_bytes(changed)
        try:
            assert images[0][0].dtype == torch.uint8
        except DataError:
            refused += 1
    assert refused > 5


# Fashion-MNIST


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
def test_fashion_mnist_pixels_and_labels(fashion, zipped):
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
    known = {tuple(image.flatten()): i % 10 for i, image in enumerate(arrays["train-images-idx3-ubyte"])}
    for split, n in ((data.validation, 10), (data.train, 50)):
        assert len(split) == n
        assert [known[pixels] for pixels in all_pixels(split)] == all_labels(split).tolist()
    assert len({*all_pixels(data.train), *all_pixels(data.validation)}) == 60


def test_a_missing_fashion_mnist_folder_or_file(fashion):
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
def test_a_broken_idx_file(fashion, damage, zipped):
    folder, _ = fashion
    path = folder / "train-images-idx3-ubyte"
    content = damage(path.read_bytes())
    path.unlink()
    path.with_name(f"{path.name}.gz" if zipped else path.name).write_bytes(
        gzip.compress(content) if zipped else content
    )
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte is not a readable IDX file .*; fetch it again"):
        load_data(fashion_config(folder))


def test_a_broken_gzip_file(fashion):
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
    ],
)
def test_idx_files_that_do_not_fit_each_other(fashion, name, array):
    folder, _ = fashion
    (folder / name).write_bytes(idx(array))
    with pytest.raises(DataError, match=r"train|t10k"):
        load_data(fashion_config(folder))
