"""The same pictures, stored in every way that a source reads."""

import csv
import io
import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from ofa.data.config import DataConfig

CLASSES = ("eight", "one", "zero")


@dataclass(frozen=True)
class Pictures:
    """Handwritten digits by split: PIL images in the order of their classes, and the classes' names."""

    splits: dict[str, list[tuple[Image.Image, str]]]

    def rows(self):
        """Yield split, number in it, picture and class."""
        for split, pairs in self.splits.items():
            for i, (picture, name) in enumerate(pairs):
                yield split, i, picture, name


@pytest.fixture(scope="session")
def pictures():
    digits = load_digits()
    pixels = (digits.images * (255 / 16)).round().astype(np.uint8)
    splits = {"train": [], "val": [], "test": []}
    for name, digit in zip(CLASSES, (8, 1, 0), strict=True):
        own = [Image.fromarray(image) for image in pixels[digits.target == digit][:24]]
        for split, part in zip(splits, (own[:12], own[12:18], own[18:]), strict=True):
            splits[split] += [(picture, name) for picture in part]
    return Pictures(splits)


def png(picture):
    content = io.BytesIO()
    picture.save(content, "png")
    return content.getvalue()


def as_image_folder(folder, pictures):
    for split, i, picture, name in pictures.rows():
        (folder / split / name).mkdir(parents=True, exist_ok=True)
        picture.save(folder / split / name / f"{i:03}.png")
    return {"name": "image_folder", "folder": folder}


def as_csv(folder, pictures):
    (folder / "files").mkdir(parents=True)
    with (folder / "pictures.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "split"])
        for split, i, picture, name in pictures.rows():
            picture.save(folder / "files" / f"{split}-{i}.png")
            writer.writerow([f"files/{split}-{i}.png", name, split])
    return {"name": "csv", "folder": folder / "pictures.csv"}


def arrays_of(pictures):
    named = {}
    for split, pairs in pictures.splits.items():
        named[f"{split}_images"] = np.stack([np.asarray(picture) for picture, _ in pairs])
        named[f"{split}_labels"] = np.array([name for _, name in pairs])
    return named


def as_npz(folder, pictures):
    folder.mkdir(parents=True)
    np.savez(folder / "pictures.npz", **arrays_of(pictures))
    return {"name": "arrays", "folder": folder / "pictures.npz"}


def as_compressed_npz(folder, pictures):
    folder.mkdir(parents=True)
    np.savez_compressed(folder / "pictures.npz", **arrays_of(pictures))
    return {"name": "arrays", "folder": folder}


def as_npy(folder, pictures):
    folder.mkdir(parents=True)
    for name, array in arrays_of(pictures).items():
        np.save(folder / f"{name}.npy", array)
    return {"name": "arrays", "folder": folder}


def as_webdataset(folder, pictures):
    folder.mkdir(parents=True)
    for split, pairs in pictures.splits.items():
        for shard, first in enumerate(range(0, len(pairs), 10)):
            with tarfile.open(folder / f"{split}-{shard:03}.tar", "w") as tar:
                for i, (picture, name) in enumerate(pairs[first : first + 10], first):
                    for suffix, content in (("png", png(picture)), ("cls", (name or "").encode())):
                        member = tarfile.TarInfo(f"digits/{i:04}.{suffix}")
                        member.size = len(content)
                        tar.addfile(member, io.BytesIO(content))
    return {"name": "webdataset", "folder": folder}


def as_parquet(folder, pictures):
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    folder.mkdir(parents=True)
    for split, pairs in pictures.splits.items():
        table = arrow.table(
            {
                "image": [{"bytes": png(picture), "path": None} for picture, _ in pairs],
                "label": [name for _, name in pairs],
            }
        )
        parquet.write_table(table, folder / f"{split}-00000-of-00001.parquet", row_group_size=7)
    return {"name": "parquet", "folder": folder}


def as_huggingface(folder, pictures):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(CLASSES))})
    parts = {}
    for split, pairs in pictures.splits.items():
        columns = {"image": [picture for picture, _ in pairs], "label": [CLASSES.index(name) for _, name in pairs]}
        parts[split] = datasets.Dataset.from_dict(columns, features=features)
    datasets.DatasetDict(parts).save_to_disk(str(folder))
    return {"name": "huggingface", "folder": folder}


WRITERS = {
    "image_folder": as_image_folder,
    "csv": as_csv,
    "npz": as_npz,
    "compressed npz": as_compressed_npz,
    "npy": as_npy,
    "webdataset": as_webdataset,
    "parquet": as_parquet,
    "huggingface": as_huggingface,
}


@pytest.fixture
def write(tmp_path, pictures):
    """Stores the pictures: `write(kind)` returns the configuration that reads them; options are further keys."""

    def write_as(kind, **options):
        return DataConfig(**WRITERS[kind](Path(tmp_path) / kind / "digits", pictures), in_channels=1, **options)

    return write_as
