import numpy as np
import pytest
from torch import nn

from export.devices.ort_cpu import OrtCpu
from export.formats.onnx import export_onnx
from export.formats.ort_format import write_ort
from export.formats.precision import PRECISIONS, convert
from export.preprocess import Preprocess
from export.session import run, session
from ofa.core.errors import DeviceError
from ofa.devices.device import Model


@pytest.fixture
def batch(images):
    return Preprocess(28, 1, (0.3,), (0.4,))(images)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_file_beside_computes_the_same_and_keeps_its_metadata(network, batch, tmp_path, precision):
    path = tmp_path / "level.onnx"
    export_onnx(network, (1, 28, 28), path, metadata={"labels": "[]"})
    convert(path, precision, batch)
    written = write_ort(path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["level.onnx", "level.ort"]
    assert written.read_bytes()[4:8] == b"ORTM"
    for source in (written, written.read_bytes()):
        model = session(source)
        assert run(model, batch) == pytest.approx(run(session(path), batch), abs=1e-3)  # float16 is rounded elsewhere
        assert model.get_modelmeta().custom_metadata_map == {"labels": "[]"}


def test_devices_measure_it(tmp_path):
    path = tmp_path / "level.onnx"
    linear = nn.Linear(5, 3)
    export_onnx(linear, (5,), path)
    (logits,) = OrtCpu(batch=2).load(Model.of(linear, (5,), write_ort(path))).run()
    assert logits.shape == (2, 3)
    assert np.isfinite(logits).all()


def test_a_file_that_is_no_model_is_refused_and_nothing_is_written(tmp_path, capfd):
    path = tmp_path / "level.onnx"
    path.write_bytes(b"not a model")
    with pytest.raises(DeviceError, match=r"^level.onnx cannot be written as level.ort: .*; export the network again$"):
        write_ort(path)
    assert [file.name for file in tmp_path.iterdir()] == ["level.onnx"]
    assert capfd.readouterr() == ("", "")
