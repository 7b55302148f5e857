"""JPEG files made from the photographs that scikit-learn ships: crops of any place, size and color."""

from functools import cache, partial
from io import BytesIO
from multiprocessing import Pool
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance
from sklearn.datasets import load_sample_images

N_CLASSES = 10
SIDES = (224, 500)
"""Range of the sides in pixels."""
SMALL_CLASSES = 100
N_TRAIN, N_VALIDATION = 1500, 100


def jpeg_folder(root: Path, n: int, sides: tuple[int, int] = SIDES) -> Path:
    """Return a folder of classes by split with `n` test images, made if it is not there yet."""
    folder = root / f"{n}-jpegs-of-{sides[0]}-to-{sides[1]}-pixels"
    if not folder.exists():
        for split, of_split in {"train": N_TRAIN, "validation": N_VALIDATION, "test": n}.items():
            for label in range(N_CLASSES):
                (folder.with_suffix(".part") / split / f"class-{label}").mkdir(parents=True, exist_ok=True)
            with Pool(2) as pool:
                pool.map(partial(_write, folder.with_suffix(".part") / split, sides), range(of_split), chunksize=100)
        folder.with_suffix(".part").rename(folder)
    return folder


def small_jpeg_folder(root: Path, n: int) -> Path:
    """Return a folder of classes with `n` different JPEG files of 32 pixels, made if it is not there yet."""
    folder = root / f"{n}-small-jpegs"
    part = folder.with_suffix(".part")
    if not folder.exists():
        contents = [_small_jpeg(number) for number in range(200)]
        for label in range(SMALL_CLASSES):
            (part / f"class-{label:02}").mkdir(parents=True, exist_ok=True)
        for number in range(n):
            start, rest = contents[number % 200][:2], contents[number % 200][2:]
            comment = b"\xff\xfe\x00\x0a" + number.to_bytes(8, "big")  # makes each file another one
            (part / f"class-{number % SMALL_CLASSES:02}" / f"{number:07}.jpg").write_bytes(start + comment + rest)
        part.rename(folder)
    return folder


def _small_jpeg(number: int) -> bytes:
    rng, content = np.random.default_rng(number), BytesIO()
    photo = _photos()[rng.integers(2)]
    left, top = int(rng.integers(500)), int(rng.integers(300))
    photo.resize((32, 32), box=(left, top, left + 100, top + 100)).save(content, "JPEG", quality=80)
    return content.getvalue()


@cache
def _photos() -> list[Image.Image]:
    return [Image.fromarray(pixels) for pixels in load_sample_images().images]


def _write(folder: Path, sides: tuple[int, int], number: int) -> None:
    rng = np.random.default_rng((len(folder.name), number))
    photo = _photos()[rng.integers(2)]
    width, height = rng.integers(sides[0], sides[1] + 1, size=2).tolist()
    share = rng.uniform(0.3, 0.9)
    crop_width, crop_height = (int(share * side) for side in photo.size)
    left, top = (
        int(rng.integers(side - crop)) for side, crop in zip(photo.size, (crop_width, crop_height), strict=True)
    )
    picture = photo.resize((width, height), box=(left, top, left + crop_width, top + crop_height))
    colored = ImageEnhance.Color(picture).enhance(rng.uniform(0.3, 1.7))
    colored.save(folder / f"class-{number % N_CLASSES}" / f"{number:06}.jpg", quality=int(rng.integers(70, 95)))
