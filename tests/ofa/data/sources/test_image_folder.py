import struct
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ofa.core.errors import DataError
from ofa.data.config import DataConfig
from ofa.data.decode import Decoder
from ofa.data.images import stored
from ofa.data.load import load_data
from ofa.data.overview import findings
from ofa.data.sources.files import FileStore


def all_labels(images):
    assert images.labels.tolist() == [label for _, label in images]
    return images.labels.numpy()


def paths_of(images):
    return [Path(images.store.name(position)) for position in images.positions.tolist()]


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
    files = [path for split in (data.train, data.validation, data.test) for path in paths_of(split)]
    assert len(files) == len(set(files)) == 40


@pytest.mark.parametrize("present", [("validation",), ("test",), ("validation", "test")])
def test_folders_of_splits_are_used_and_other_splits_come_from_the_training_images(tmp_path, fill, present):
    root = tmp_path / "pets"
    for split in ("train", *present):
        fill(root / split)
    data = load_data(folder_config(root))
    for split in present:
        assert set(paths_of(getattr(data, split))) == set((root / split).glob("*/*.png"))
    others = {"train", "validation", "test"} - set(present)
    files = [path for split in others for path in paths_of(getattr(data, split))]
    assert set(files) == set((root / "train").glob("*/*.png"))
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


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_a_file_that_is_cut_short_is_named_before_any_training(tmp_path, fill, picture, suffix):
    root = fill(tmp_path / "pets")
    path = root / "dog" / f"long.{suffix}"
    picture([40, 60, 90], (200, 200)).save(path)
    load_data(folder_config(root))
    path.write_bytes(path.read_bytes()[:-100])  # Pillow still reads its beginning
    with pytest.raises(DataError, match=rf"cannot read the image .*dog/long\.{suffix} .*repair or remove it"):
        load_data(folder_config(root))


def test_bytes_after_the_end_of_a_picture_do_no_harm(tmp_path, fill, picture):
    root = fill(tmp_path / "pets")
    path = root / "dog" / "long.jpg"
    picture([40, 60, 90], (200, 200)).save(path)
    path.write_bytes(path.read_bytes() + bytes(10_000))  # as some cameras write
    data = load_data(folder_config(root))
    assert len(data.train) + len(data.validation) + len(data.test) == 21


def test_images_of_more_than_8_bits_are_refused_as_pillow_would_clip_them(tmp_path, fill):
    path = fill(tmp_path / "pets") / "dog" / "3.png"
    Image.fromarray((np.arange(64 * 64).reshape(64, 64) * 16).astype(np.uint16)).save(path)
    with pytest.raises(DataError, match=r"cannot read the image .*dog/3\.png \(its mode is I;16; scale it to 8 bits"):
        load_data(folder_config(tmp_path / "pets"))


@pytest.mark.filterwarnings("ignore")  # Pillow also warns of what it reads
@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "webp", "tif"])
def test_an_image_with_changed_bytes_is_read_or_refused(tmp_path, picture, suffix):
    rng, path = np.random.default_rng(0), tmp_path / f"a.{suffix}"
    picture([40, 60, 90], (32, 32)).save(path)
    whole, refused = path.read_bytes(), 0
    images = stored(FileStore.of(tmp_path, [path.name], Decoder()), [0])
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
    names = ["dog/3.bmp", "cat/1.png", "cat/2.png"]

    def digest(labels=(1, 0, 0)):
        return stored(FileStore.of(root, names, Decoder()), labels).digest()

    before, content = digest(), bytearray(path.read_bytes())
    assert len(content) > 2 * 4096
    if change == "first bytes":
        content[4000] ^= 1
    elif change == "last bytes":
        content[-4000] ^= 1
    elif change == "size":
        del content[6000]
    path.write_bytes(content)
    assert (digest((0, 0, 0) if change == "a label" else (1, 0, 0)) == before) == (change == "none")


def test_the_digest_does_not_depend_on_where_the_folder_is(tmp_path, fill):
    here, there = (load_data(folder_config(fill(tmp_path / name / "pets"))).info for name in ("here", "there"))
    assert here == there


# Folders as people have them


@pytest.mark.parametrize(
    "names", [("training", "valid", "testing"), ("Train", "VAL", "Test"), ("TRAIN", "Validation", "TESTING")]
)
def test_folders_of_splits_may_have_the_names_that_people_give_them(tmp_path, fill, names):
    for n, name in enumerate(names, 4):
        fill(tmp_path / "pets" / name, n=n)
    data = load_data(folder_config(tmp_path / "pets"))
    assert [len(images) for images in (data.train, data.validation, data.test)] == [8, 10, 12]
    assert not data.notes


def test_two_folders_for_one_split_are_refused(tmp_path, fill):
    for name in ("train", "val", "valid"):
        fill(tmp_path / "pets" / name)
    with pytest.raises(DataError, match=r"/val and .*/valid are both folders of the validation split; keep one"):
        load_data(folder_config(tmp_path / "pets"))


def test_splits_without_training_images_are_refused(tmp_path, fill):
    for name in ("val", "test"):
        fill(tmp_path / "pets" / name)
    with pytest.raises(DataError, match="has only test, validation, but no folder train; add the training images"):
        load_data(folder_config(tmp_path / "pets"))


def test_a_folder_beside_splits_that_is_not_used_is_said(tmp_path, fill):
    for name in ("train", "cats", "val"):
        fill(tmp_path / "pets" / name)
    (note,) = load_data(folder_config(tmp_path / "pets")).notes
    assert note == f"{tmp_path / 'pets' / 'cats'} is not used: it is no split, and others are"


def test_a_class_that_is_called_like_a_split_is_said(tmp_path, fill):
    data = load_data(folder_config(fill(tmp_path / "pets", classes=("cat", "val"))))
    assert data.labels == ("cat", "val")
    (note,) = data.notes
    assert note.startswith(f"{tmp_path / 'pets' / 'val'} is taken for a class, though it is called like a split")


def test_what_no_person_put_there_is_skipped_counted_and_named(tmp_path, fill):
    root = fill(tmp_path / "pets")
    for name in (
        ".DS_Store",
        "Thumbs.db",
        "cat/._1.png",
        "cat/.hidden.jpg",
        "dog/notes.txt",
        "dog/READ ME",
        "list.csv",
    ):
        (root / name).write_bytes(b"no image")
    fill(root / "__MACOSX", n=1)
    fill(root / ".cache", n=1)
    data = load_data(folder_config(root))
    assert data.labels == ("cat", "dog")
    assert len(data.train) + len(data.validation) + len(data.test) == 20
    (note,) = data.notes
    assert note == (
        f"skipped in {root}: 3 file outside the folders of classes, 2 hidden folder, 2 hidden file, 1 without suffix "
        "(no image), 1 .txt (no image)"
    )


def test_all_broken_files_are_named_at_once(tmp_path, fill):
    root = fill(tmp_path / "pets", n=20)
    broken = [root / "cat" / f"{i}.png" for i in range(3)]
    for path in broken:
        path.write_bytes(b"no image")
    with pytest.raises(DataError, match="cannot read 3 images: ") as caught:
        load_data(folder_config(root))
    assert all(str(path) in str(caught.value) for path in broken)
    for path in root.glob("*/*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(DataError, match=r"cannot read 40 images: .* and 20 more; repair or remove them"):
        load_data(folder_config(root))


def test_a_class_without_images_in_one_split_is_said(tmp_path, fill):
    root = tmp_path / "pets"
    for name in ("train", "test"):
        fill(root / name)
    for path in (root / "test" / "dog").iterdir():
        path.unlink()
    data = load_data(folder_config(root))
    assert findings(data)[-1] == "class 'dog' has no images in test"
    assert data.labels == ("cat", "dog")


def test_a_link_that_leads_back_ends(tmp_path, fill):
    root = fill(tmp_path / "pets")
    (root / "cat" / "again").symlink_to(root / "cat")
    data = load_data(folder_config(root))
    assert len(data.train) + len(data.validation) + len(data.test) == 20
