import numpy as np
import pytest

from export.session import run, session
from ofa.core.errors import DeviceError


def test_threads_and_order_are_set(source):
    options = session(source / "28.onnx", threads=2).get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (2, 1)
    assert options.get_session_config_entry("session.force_spinning_stop") == "1"


def test_a_file_and_its_content_are_the_same_model(source):
    images = np.ones((2, 1, 28, 28), dtype=np.float32)
    path = source / "28.onnx"
    assert np.array_equal(run(session(path), images), run(session(path.read_bytes()), images))


@pytest.mark.parametrize("model", [b"not a model", b""])
def test_a_file_that_is_no_model_is_refused_in_one_line(model, tmp_path, capfd):
    path = tmp_path / "model.onnx"
    path.write_bytes(model)
    for source in (model, path):
        with pytest.raises(DeviceError, match=r"^ONNX Runtime cannot load the model: .*; use float32 .*$"):
            session(source)
    with pytest.raises(DeviceError, match="ONNX Runtime cannot load the model"):
        session(tmp_path / "missing.onnx")
    assert capfd.readouterr() == ("", "")


def test_images_of_another_shape_are_refused_in_one_line(source, capfd):
    with pytest.raises(
        DeviceError, match=r"^ONNX Runtime cannot run the model on \(1, 3, 28, 28\): .*; check the shape"
    ):
        run(session(source / "28.onnx"), np.zeros((1, 3, 28, 28), dtype=np.float32))
    assert capfd.readouterr() == ("", "")
