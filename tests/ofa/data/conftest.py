import numpy as np
import pytest
from PIL import Image

from ofa.data.config import DataConfig
from ofa.data.load import load_data


@pytest.fixture(scope="session")
def digits():
    return load_data(DataConfig(name="digits"))


class Counted:
    """Images that count how often one is read."""

    def __init__(self, images):
        self.images, self.n_read = images, 0

    def __len__(self):
        return len(self.images)

    def __getitem__(self, i):
        self.n_read += 1
        return self.images[i]


def noisy_picture(color, size=(12, 10), mode="RGB"):
    rng = np.random.default_rng(sum(color) + size[0])
    pixels = np.clip(rng.normal(color, 20, size=(size[1], size[0], 3)), 0, 255).astype(np.uint8)
    return Image.fromarray(pixels).convert(mode)


def write_class_folders(folder, classes=("cat", "dog"), n=10, mode="RGB"):
    for c, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        for i in range(n):
            color = [40, 60, 90]
            color[c % 3] = 200 - i
            noisy_picture(color, (12 + i, 10 + c), mode).save(folder / name / f"{i}.png")
    return folder


@pytest.fixture(scope="session")
def picture():
    """Draws a noisy picture: `picture(color, size, mode)`."""
    return noisy_picture


@pytest.fixture(scope="session")
def fill():
    """Writes `n` pictures of different sizes for each class: `fill(folder, classes, n, mode)` returns the folder."""
    return write_class_folders
