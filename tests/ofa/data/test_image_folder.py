import struct
from itertools import product

import numpy as np
import pytest
import torch
from PIL import Image

from ofa.core.errors import DataError
from ofa.data.config import DataConfig
from ofa.data.load import load_data


def all_labels(images):
    return np.array([label for _, label in images])


def folder_config(folder, **options):
    return DataConfig(name="image_folder", folder=folder, **options)


@pytest.mark.parametrize(("mode", "in_channels"), list(product(["RGB", "L", "RGBA", "P"], [1, 3])))
def test_pixels_are_those_that_pillow_reads(tmp_path, fill, mode, in_channels):
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


def test_images_are_split_in_the_configured_shares(tmp_path, fill):
    data = load_data(folder_config(fill(tmp_path / "pets", n=20), test_percent=20.0, validation_percent=25.0))
    for images, per_class in ((data.test, 4), (data.validation, 4), (data.train, 12)):
        assert np.bincount(all_labels(images)).tolist() == [per_class] * 2
    files = [path for split in (data.train, data.validation, data.test) for path, _ in split.files]
    assert len(files) == len(set(files)) == 40


@pytest.mark.parametrize("present", [("validation",), ("test",), ("validation", "test")])
def test_folders_of_splits_are_used_and_other_splits_come_from_the_training_images(tmp_path, fill, present):
    root = tmp_path / "pets"
    for split in ("train", *present):
        fill(root / split)
    data = load_data(folder_config(root))
    for split in present:
        assert {path for path, _ in getattr(data, split).files} == {
            str(path) for path in (root / split).glob("*/*.png")
        }
    others = {"train", "validation", "test"} - set(present)
    files = [path for split in others for path, _ in getattr(data, split).files]
    assert set(files) == {str(path) for path in (root / "train").glob("*/*.png")}
    assert len(files) == 20


def test_three_images_of_each_class_are_enough(tmp_path, fill):
    data = load_data(folder_config(fill(tmp_path / "pets", n=3)))
    assert len(data.train) == len(data.validation) == len(data.test) == 2


@pytest.mark.parametrize("n", [1, 2])
def test_a_class_of_too_few_images_is_refused(tmp_path, fill, n):
    root = fill(tmp_path / "pets")
    fill(root, classes=["emu"], n=n)
    with pytest.raises(DataError, match="class 'emu' has too few images to split; every class needs at least 3"):
        load_data(folder_config(root))


def test_missing_and_empty_folders_are_refused(tmp_path):
    for folder in (None, tmp_path / "nowhere"):
        with pytest.raises(DataError, match=r"no folder .*set data\.folder to a folder with one folder of images per"):
            load_data(folder_config(folder))
    for name in ("flat", "flat/cat"):  # no classes, then a class without images
        (tmp_path / name).mkdir()
        with pytest.raises(DataError, match="flat is not a folder with one folder of images per class"):
            load_data(folder_config(tmp_path / "flat"))


def test_a_single_class_is_refused(tmp_path, fill):
    with pytest.raises(DataError, match=r"has the classes \('cat',\); a classifier needs at least two"):
        load_data(folder_config(fill(tmp_path / "pets", classes=["cat"])))


def test_a_split_with_other_classes_is_refused(tmp_path, fill):
    fill(tmp_path / "pets" / "train")
    fill(tmp_path / "pets" / "validation", classes=["cat", "emu"])
    with pytest.raises(DataError, match=r"validation has the classes \['cat', 'emu'\], but .* \['cat', 'dog'\]"):
        load_data(folder_config(tmp_path / "pets"))


def test_images_of_a_single_color_are_refused(tmp_path):
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
def test_a_broken_image_is_refused(tmp_path, fill, damage):
    path = fill(tmp_path / "pets") / "dog" / "3.png"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=r"cannot read the image .*dog/3\.png .*repair or remove it"):
        load_data(folder_config(tmp_path / "pets"))


def test_images_of_more_than_8_bits_are_refused_as_pillow_would_clip_them(tmp_path, fill):
    path = fill(tmp_path / "pets") / "dog" / "3.png"
    Image.fromarray((np.arange(64 * 64).reshape(64, 64) * 16).astype(np.uint16)).save(path)
    with pytest.raises(DataError, match=r"cannot read the image .*dog/3\.png \(its mode is I;16; scale it to 8 bits"):
        load_data(folder_config(tmp_path / "pets"))


@pytest.mark.filterwarnings("ignore")  # Pillow also warns of what it reads
@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "webp", "tif"])
def test_an_image_with_changed_bytes_is_read_or_refused(tmp_path, fill, picture, suffix):
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


def test_a_file_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "pets").write_text("no folder")
    with pytest.raises(DataError, match=r"no folder .*pets; set data\.folder"):
        load_data(folder_config(tmp_path / "pets"))


def test_an_empty_folder_of_a_split_is_refused(tmp_path, fill):
    fill(tmp_path / "pets" / "train")
    (tmp_path / "pets" / "test" / "cat").mkdir(parents=True)
    with pytest.raises(DataError, match="test is not a folder with one folder of images per class"):
        load_data(folder_config(tmp_path / "pets"))


@pytest.mark.parametrize("change", ["first bytes", "last bytes", "size", "a label", "none"])
def test_the_digest_of_image_files_changes_with_their_content(tmp_path, fill, change):
    root = fill(tmp_path / "pets")
    path = root / "dog" / "3.bmp"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(path)
    images = load_data(folder_config(root)).train
    images = type(images)(((str(path), 1), *images.files[:3]), in_channels=3)
    before, content = images.digest(), bytearray(path.read_bytes())
    assert len(content) > 2 * 4096
    if change == "first bytes":
        content[4000] ^= 1
    elif change == "last bytes":
        content[-4000] ^= 1
    elif change == "size":
        del content[6000]
    elif change == "a label":
        images = type(images)(((str(path), 0), *images.files[1:]), in_channels=3)
    path.write_bytes(content)
    assert (images.digest() == before) == (change == "none")


def test_the_digest_does_not_depend_on_where_the_folder_is(tmp_path, fill):
    here, there = (load_data(folder_config(fill(tmp_path / name / "pets"))).info for name in ("here", "there"))
    assert here == there


def test_the_digest_of_a_missing_file_is_one_error(tmp_path, fill):
    data = load_data(folder_config(fill(tmp_path / "pets")))
    (tmp_path / "pets" / "cat" / "1.png").unlink()
    with pytest.raises(DataError, match=r"cannot read the image .*cat/1\.png .*repair or remove it"):
        _ = data.info
