import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import export.mnn_session
from export.formats.mnn_format import write_mnn
from export.formats.onnx import export_onnx
from export.mnn_session import MnnModel
from ofa.core.errors import DeviceError

pytest.importorskip("_tools", reason="needs pip install 'ofa[mnn]'")


@pytest.fixture(scope="module")
def path(network, tmp_path_factory):
    folder = tmp_path_factory.mktemp("mnn")
    export_onnx(network, (1, 28, 28), folder / "model.onnx")
    write_mnn(folder / "model.onnx", folder / "model.mnn")
    return folder / "model.mnn"


@pytest.fixture
def images():
    return np.random.default_rng(0).standard_normal((5, 1, 28, 28), dtype=np.float32)


@pytest.mark.parametrize("n", [1, 2, 5])
@pytest.mark.parametrize("threads", [1, 2])
def test_logits_are_those_of_pytorch_for_any_batch(network, path, images, n, threads):
    with torch.no_grad():
        expected = network(torch.from_numpy(images[:n])).numpy()
    logits = MnnModel(path, threads)(images[:n])
    assert logits.dtype == np.float32
    assert np.abs(expected).max() > 0.1
    assert np.abs(logits - expected).max() < 1e-5 * np.abs(expected).max()


def test_threads_that_share_a_model_get_the_logits_of_their_own_images(path, images):
    model = MnnModel(path)
    expected = [model(image[None]) for image in images]
    with ThreadPoolExecutor(4) as pool:
        numbers = list(range(5)) * 20
        found = list(pool.map(lambda i: model(images[i][None]), numbers))
    assert all(np.array_equal(logits, expected[i]) for i, logits in zip(numbers, found, strict=True))


def test_a_file_of_something_else_is_one_error(tmp_path):
    (tmp_path / "model.mnn").write_bytes(b"not a model")
    with pytest.raises(DeviceError, match=r"MNN cannot load model\.mnn: .*; export the network again"):
        MnnModel(tmp_path / "model.mnn")


@pytest.mark.parametrize("shape", [(1, 3), (1, 1, 27, 28), (1, 3, 28, 28)])
def test_images_of_another_shape_are_one_error(path, shape):
    with pytest.raises(DeviceError, match=r"the model takes images \['n', 1, 28, 28\], these are \[1, "):
        MnnModel(path)(np.zeros(shape, np.float32))


def test_without_mnn_the_error_says_what_to_install(path, monkeypatch):
    export.mnn_session.import_mnn.cache_clear()
    monkeypatch.setattr(export.mnn_session, "find_spec", lambda _: None)
    with pytest.raises(DeviceError, match=r"MNN is not installed; run: pip install 'ofa\[mnn\]'"):
        MnnModel(path)


def test_nothing_is_written_to_the_standard_output_which_is_there_after_any_number_of_threads_loaded(path):
    program = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
import numpy as np
from export.mnn_session import MnnModel
with ThreadPoolExecutor(8) as pool:
    models = list(pool.map(MnnModel, [Path(sys.argv[1])] * 40))
models[-1](np.zeros((1, 1, 28, 28), np.float32))
try:
    MnnModel(Path(sys.executable))  # not a model, of which MNN writes a line
except Exception:
    print("{}")
"""
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout == "{}\n"
