import json
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import ofa
from export.bundle import BundledLevel
from export.bundle_writer import write_bundle
from export.formats.onnx import export_onnx
from export.model_files import FILE_KINDS
from export.preprocess import Preprocess
from export.web import assets
from export.web.server import ServeConfig, serve
from ofa.core.errors import DeviceError
from ofa.devices.format import create_format
from tests.levels import level
from tests.servers import answering
from tests.web_pages import KEY, Client

LABELS = tuple("abcdefghij")
RESOLUTIONS_AND_KERNELS = ((40, 5), (32, 3), (28, 3))


def arch_of(family, resolution, kernel):
    return dict(family.space.smallest) | {"resolution": resolution, "stage1.block0.kernel": kernel}


def smooth_images(n, side, seed):
    noise = np.random.default_rng(seed).integers(0, 256, size=(n, 4, 4), dtype=np.uint8)
    return np.stack([np.asarray(Image.fromarray(image).resize((side, side))) for image in noise])


def awake(network, preprocess):
    """Return the network with the statistics of images and a logit spread of about one; untrained, it is 1e-6."""
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
def source(supernet, family, tmp_path_factory):
    """A folder with the ONNX files of `levels`."""
    folder = tmp_path_factory.mktemp("onnx")
    for resolution, kernel in RESOLUTIONS_AND_KERNELS:
        arch = family.space.arch(arch_of(family, resolution, kernel))
        network = awake(supernet.extract(arch), Preprocess(resolution, 1, (0.3,), (0.4,)))
        export_onnx(network, family.input_shape(arch), folder / f"{resolution}.onnx")
    return folder


@pytest.fixture(scope="session")
def levels(family):
    """Three levels of one supernet, at three resolutions; their files are in `source`."""
    return [
        BundledLevel(
            **vars(
                level(
                    family.space.arch(arch_of(family, resolution, kernel)),
                    f"{resolution}.onnx",
                    top1_percent=90.0 - i,
                    latency_ms=3.0 - i,
                    predicted_latency_ms=3.1 - i,
                )
            ),
            preprocess=Preprocess(resolution, 1, (0.3,), (0.4,)),
        )
        for i, (resolution, kernel) in enumerate(RESOLUTIONS_AND_KERNELS)
    ]


@pytest.fixture
def write(source):
    """Write a bundle of some levels: `write(folder, levels)`."""

    def call(folder, levels, **options):
        targets = {level.target: {"device": "ort-cpu"} for level in levels}
        defaults = {"source": source, "name": "tiny", "labels": LABELS, "targets": targets}
        return write_bundle(folder, levels, **defaults | options)

    return call


@pytest.fixture(scope="session", params=FILE_KINDS)
def other_format(request):
    """Each model format beside ONNX whose runtime is installed."""
    try:
        return create_format(request.param)
    except DeviceError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def other_file(other_format, network, tmp_path_factory):
    """A file of `network` in `other_format`."""
    path = tmp_path_factory.mktemp(other_format.name) / f"model{other_format.suffix}"
    other_format.write(network, (1, 28, 28), path, precision="float32", images=np.empty(0), metadata={"a": "b"})
    return path


@pytest.fixture
def folder(levels, write, tmp_path) -> Path:
    """A bundle of three levels that share their weights."""
    return write(tmp_path / "bundle", levels).folder


@pytest.fixture
def plain_folder(levels, write, tmp_path) -> Path:
    """The same bundle with an ONNX file for each level."""
    return write(tmp_path / "plain", levels, shared=False).folder


@pytest.fixture
def images():
    return smooth_images(6, 28, seed=0)


@pytest.fixture
def vendor(tmp_path, monkeypatch):
    """A folder that stands for onnxruntime-web."""
    folder = tmp_path / "vendor"
    package = tmp_path / "package"
    (package / "dist").mkdir(parents=True)
    for name in assets._RUNTIME:
        (package / "dist" / name).write_bytes(name.encode())
    about = {"name": "onnxruntime-web", "version": "1.30.0", "license": "MIT", "scripts": {}}
    (package / "package.json").write_text(json.dumps(about))
    monkeypatch.setattr(assets, "VENDOR", folder)
    assets.copy_runtime(package)
    return folder


@pytest.fixture
def serving(vendor):  # noqa: ARG001
    """Starts servers in threads of this process, and ends them."""
    with ExitStack() as ending:

        def start(**options):
            server = serve(ServeConfig(key=KEY, port=0, **options))
            ending.enter_context(answering(server))
            return server

        yield start
        for client in Client.opened:
            client.connection.close()
        Client.opened.clear()
