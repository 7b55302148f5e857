from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import ofa
from export.bundle import Level, write_bundle
from export.formats.onnx import to_onnx
from export.preprocess import Preprocess

LABELS = tuple("abcdefghij")


def smooth_images(n, side, seed):
    noise = np.random.default_rng(seed).integers(0, 256, size=(n, 4, 4), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(image).resize((side, side))) for image in noise])


def awake(network, preprocess):
    """The network with statistics of images and logits of about unit spread: untrained ones give 1e-6."""
    images = torch.from_numpy(preprocess(smooth_images(32, 28, seed=9)))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        network.train()(images)
        logits = network.eval()(images)
        classifier, spread = network.get_submodule("head.classifier"), logits.std(dim=0).mean()
        classifier.weight.div_(spread)
        classifier.bias.copy_(-logits.mean(dim=0) / spread)
    return network


@pytest.fixture(scope="session")
def family():
    return ofa.create_family("small_mobilenet_v3", num_classes=len(LABELS), in_channels=1)


@pytest.fixture(scope="session")
def supernet(family):
    return ofa.Supernet(family, seed=3).eval()


@pytest.fixture(scope="session")
def network(supernet, family):
    return awake(supernet.extract(family.space.smallest), Preprocess(28, 1, (0.3,), (0.4,)))


@pytest.fixture(scope="session")
def other_network(supernet, family):
    arch = family.space.arch(dict(family.space.smallest) | {"stage1.block0.kernel": 5})
    return awake(supernet.extract(arch), Preprocess(28, 1, (0.3,), (0.4,)))


@pytest.fixture(scope="session")
def levels(supernet, family, tmp_path_factory):
    """Three levels of one supernet with their ONNX files, at three resolutions."""
    folder = tmp_path_factory.mktemp("onnx")
    made = []
    for i, (resolution, kernel) in enumerate(((40, 5), (32, 3), (28, 3))):
        arch = family.space.arch(
            dict(family.space.smallest) | {"resolution": resolution, "stage1.block0.kernel": kernel}
        )
        path = folder / f"{resolution}.onnx"
        preprocess = Preprocess(resolution, 1, (0.3,), (0.4,))
        to_onnx(awake(supernet.extract(arch), preprocess), family.input_shape(arch), path)
        made.append((Level(arch, 90.0 - i, 3.0 - i, None, 10.0 - i, 1.0, preprocess), path))
    return made


@pytest.fixture
def folder(levels, tmp_path) -> Path:
    """A bundle of three levels."""
    return write_bundle(tmp_path / "bundle", "tiny", LABELS, {"device": "ort-cpu"}, levels).folder


@pytest.fixture
def images():
    return smooth_images(6, 28, seed=0)
