"""JPEG files made from the photographs that scikit-learn ships: crops of any place, size and color."""

from functools import cache, partial
from multiprocessing import Pool
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance
from sklearn.datasets import load_sample_images

N_CLASSES = 10
SIDES = (224, 501)
"""Range of the sides in pixels."""
N_TRAIN, N_VALIDATION = 1500, 100


def jpeg_folder(root: Path, n: int) -> Path:
    """Return a folder of classes by split with `n` test images, made if it is not there yet."""
    folder = root / f"{n}-jpegs"
    if not folder.exists():
        for split, of_split in {"train": N_TRAIN, "validation": N_VALIDATION, "test": n}.items():
            for label in range(N_CLASSES):
                (folder.with_suffix(".part") / split / f"class-{label}").mkdir(parents=True, exist_ok=True)
            with Pool(2) as pool:
                pool.map(partial(_write, folder.with_suffix(".part") / split), range(of_split), chunksize=100)
        folder.with_suffix(".part").rename(folder)
    return folder


@cache
def _photos() -> list[Image.Image]:
    return [Image.fromarray(pixels) for pixels in load_sample_images().images]


def _write(folder: Path, number: int) -> None:
    rng = np.random.default_rng((len(folder.name), number))
    photo = _photos()[rng.integers(2)]
    width, height = rng.integers(*SIDES, size=2).tolist()
    share = rng.uniform(0.3, 0.9)
    crop_width, crop_height = (int(share * side) for side in photo.size)
    left, top = (
        int(rng.integers(side - crop)) for side, crop in zip(photo.size, (crop_width, crop_height), strict=True)
    )
    picture = photo.resize((width, height), box=(left, top, left + crop_width, top + crop_height))
    colored = ImageEnhance.Color(picture).enhance(rng.uniform(0.3, 1.7))
    colored.save(folder / f"class-{number % N_CLASSES}" / f"{number:06}.jpg", quality=int(rng.integers(70, 95)))
