import numpy as np
import pytest

from export.formats.onnx import export_onnx
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


@pytest.mark.parametrize("n", [1, 3, 6, 7])
def test_a_model_with_a_fixed_batch_runs_any_number_of_images(network, tmp_path, n):
    images = np.random.default_rng(0).standard_normal((n, 1, 28, 28), dtype=np.float32)
    open_batch, fixed = tmp_path / "open.onnx", tmp_path / "fixed.onnx"
    export_onnx(network, (1, 28, 28), open_batch)
    export_onnx(network, (1, 28, 28), fixed, batch=3)
    assert run(session(fixed), images) == pytest.approx(run(session(open_batch), images), abs=1e-5)


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
