import io
import json
import tarfile

import pytest

from ofa.core.errors import DataError
from ofa.data.config import DataConfig
from ofa.data.load import load_data
from tests.ofa.data.sources.conftest import png


@pytest.fixture
def shard(tmp_path):
    """Writes a shard of files `(name, content)`: `shard(files)` returns its configuration; options are further keys."""

    def write(files, mode="w", **options):
        with tarfile.open(tmp_path / "pets.tar", mode) as tar:
            for name, content in files:
                member = tarfile.TarInfo(name)
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
        return DataConfig(name="webdataset", folder=tmp_path, options=options)

    return write


@pytest.fixture
def files(picture):
    names = ("cat", "dog")
    return [
        (f"{i}.{suffix}", content)
        for i in range(10)
        for suffix, content in (("png", png(picture([20 * i, 90, 40]))), ("cls", names[i % 2].encode()))
    ]


def test_labels_may_lie_in_json_beside_other_files(shard, files):
    described = [
        (name.replace("cls", "meta.json"), json.dumps({"animal": content.decode(), "size": 1}).encode())
        if name.endswith("cls")
        else (name, content)
        for name, content in files
    ]
    data = load_data(shard([*described, ("9.txt", b"a caption")], label="meta.json:animal"))
    assert data.labels == ("cat", "dog")
    assert len(data.train) + len(data.validation) + len(data.test) == 10


def test_a_label_that_is_null_is_missing(shard, files):
    described = [
        (name.replace("cls", "json"), b'{"animal": null}' if "cls" in name else image) for name, image in files
    ]
    with pytest.raises(DataError, match="sample '0' has no label"):
        load_data(shard(described, label="json:animal"))


def test_samples_of_one_name_in_different_folders_are_different(shard, files):
    moved = [(f"{folder}/{name}", content) for folder in ("a", "b.c") for name, content in files]
    data = load_data(shard([*moved, ("._hidden.png", b"no image")]))
    assert len(data.train) + len(data.validation) + len(data.test) == 20


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda files: files[1:], r"pets\.tar: sample '0' has no image; see data\.options"),
        (lambda files: files[:-1], r"pets\.tar: sample '9' has no label, a file \.cls; see data\.options"),
        (lambda files: [files[0], ("0.jpg", b"x"), *files[1:]], r"sample '0' has several images; give it one"),
        (lambda files: [(n, b"\xff" if n == "3.cls" else c) for n, c in files], r"cannot read .*pets\.tar .*utf-8"),
        (lambda files: [(n, b" " if n == "3.cls" else c) for n, c in files], "sample '3' has no label"),
        (lambda files: [], "has no training images"),
    ],
)
def test_what_is_wrong_with_a_sample_is_one_error(shard, files, change, problem):
    with pytest.raises(DataError, match=problem):
        load_data(shard(change(files)))


@pytest.mark.parametrize("kept", [100, 700, 3000, -11_000])
def test_a_shard_that_is_cut_short_is_one_error(shard, files, kept):
    config = shard(files)
    path = config.folder / "pets.tar"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataError, match=r"pets\.tar"):
        load_data(config)


def test_a_compressed_shard_is_refused_as_its_images_cannot_be_read_one_by_one(shard, files):
    with pytest.raises(DataError, match=r"cannot read .*pets\.tar .*fetch it again, uncompressed"):
        load_data(shard(files, mode="w:gz"))


def test_a_broken_image_is_named_by_its_place(shard, files):
    config = shard([(name, b"no image" if name == "3.png" else content) for name, content in files])
    with pytest.raises(DataError, match=r"cannot read the image at byte \d+ of .*pets\.tar"):
        [images[i] for data in [load_data(config)] for images in (data.train, data.test) for i in range(len(images))]
