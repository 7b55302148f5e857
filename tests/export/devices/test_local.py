import json
import platform

import numpy as np
import pytest
import torch
from torch import nn

from export.devices.local import LocalRunner, check_batch, check_threads, describe, normal_images, onnx_file
from export.formats.onnx import export_onnx
from export.formats.ort_format import write_ort
from export.formats.precision import convert
from export.session import INPUT, run, session
from ofa.core.errors import DeviceError, ExportError
from ofa.devices.device import Model


def test_a_description_has_what_a_table_records():
    description = describe("mine", "runtime", "1.2", threads=4, phone="Phone 7")
    assert json.loads(json.dumps(description)) == description
    assert description.pop("processor")
    assert description == {
        "device": "mine",
        "runtime": "runtime",
        "runtime_version": "1.2",
        "os": f"{platform.system()} {platform.machine()}",
        "threads": 4,
        "precision": "float32",
        "batch": 1,
        "torch_version": torch.__version__,
        "phone": "Phone 7",
    }


def test_inputs_are_normal_and_the_same_in_each_call():
    images = normal_images(500, (3, 4))
    assert (images.shape, images.dtype) == ((500, 3, 4), np.float32)
    assert np.array_equal(images, normal_images(500, (3, 4)))
    assert abs(images.mean()) < 0.05
    assert abs(images.std() - 1) < 0.05


def test_a_model_is_a_file_as_long_as_it_is_used():
    with onnx_file(Model(lambda: nn.Linear(5, 3), (5,))) as path:
        assert run(session(path), normal_images(2, (5,))).shape == (2, 3)
    assert not path.parent.exists()


def test_the_file_of_a_model_is_used_as_it_is_and_kept(tmp_path):
    path = tmp_path / "level.onnx"
    export_onnx(nn.Linear(5, 3), (5,), path)
    before = path.read_bytes()
    with onnx_file(Model.of(nn.Identity(), (5,), path)) as used:
        assert used == path
    assert path.read_bytes() == before


def test_a_model_that_cannot_be_exported_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    model = Model(lambda: nn.AdaptiveAvgPool2d(3), (1, 10, 10))
    with pytest.raises(ExportError, match="pool to a size that divides"), onnx_file(model):
        pass
    assert not list(tmp_path.iterdir())


def test_the_runtime_that_fails_is_one_line():
    def fail():
        raise RuntimeError("no\nmemory. ")

    with pytest.raises(DeviceError, match=r"^mine cannot run a model: no memory; use float32 .*$"):
        LocalRunner("mine", fail)(1)


def test_a_runner_times_each_run(monkeypatch):
    calls, ticks = [], iter(range(100))
    monkeypatch.setattr("export.machine.perf_counter_ns", lambda: next(ticks) * 1_000_000)
    assert LocalRunner("mine", lambda: calls.append(1))(4) == [1.0] * 4
    assert len(calls) == 5


@pytest.mark.parametrize("batch", [0, 4097, 1.0, True])
def test_a_batch_is_from_1_to_4096(batch):
    with pytest.raises(DeviceError, match=f"mine: batch = {batch} is not allowed; give a whole number from 1 to 4096"):
        check_batch("mine", batch)


@pytest.mark.parametrize(("batch", "size"), [(None, "batch"), (1, "batch"), (8, 8)])
def test_a_file_is_fixed_to_the_batch_of_programs_that_cannot_be_told_it(batch, size):
    with onnx_file(Model(lambda: nn.Linear(5, 3), (5,)), batch=batch) as path:
        assert session(path).get_inputs()[0].shape == [size, 5]


@pytest.mark.parametrize(("of_file", "batch"), [(None, None), (None, 1), (8, 8), (8, None)])
def test_a_file_that_runs_at_the_batch_is_used_as_it_is(tmp_path, of_file, batch):
    path = tmp_path / "level.onnx"
    export_onnx(nn.Linear(5, 3), (5,), path, batch=of_file)
    with onnx_file(Model.of(nn.Linear(5, 3), (5,), path), batch=batch) as used:
        assert used == path


@pytest.mark.parametrize("precision", ["float32", "float16", "int8_static", "int8_dynamic"])
def test_a_file_for_any_batch_is_fixed_in_a_copy_that_computes_the_same(tmp_path, precision):
    path, images = tmp_path / "level.onnx", normal_images(8, (5,))
    export_onnx(nn.Linear(5, 3), (5,), path)
    convert(path, precision, images)
    before = path.read_bytes()
    with onnx_file(Model.of(nn.Linear(5, 3), (5,), path), batch=8) as used:
        fixed = session(used)
        assert [value.shape for value in (*fixed.get_inputs(), *fixed.get_outputs())] == [[8, 5], [8, 3]]
        assert np.array_equal(fixed.run(None, {INPUT: images})[0], session(path).run(None, {INPUT: images})[0])
    assert path.read_bytes() == before


def test_a_file_that_has_or_keeps_another_batch_is_refused(tmp_path):
    path = tmp_path / "level.onnx"
    export_onnx(nn.Linear(5, 3), (5,), path)
    other = write_ort(path)
    message = "level.ort takes any batch, and is not an ONNX file, but the device's batch is 8; export it with batch=8"
    with pytest.raises(DeviceError, match=message), onnx_file(Model.of(nn.Linear(5, 3), (5,), other), batch=8):
        pass
    export_onnx(nn.Linear(5, 3), (5,), path, batch=8)
    message = "level.onnx has batch 8, but the device's batch is 1; export it with batch=1"
    with pytest.raises(DeviceError, match=message), onnx_file(Model.of(nn.Linear(5, 3), (5,), path), batch=1):
        pass


def test_threads_are_at_most_the_processors(monkeypatch):
    monkeypatch.setattr("export.devices.local.os.cpu_count", lambda: 3)
    check_threads("mine", 3)
    with pytest.raises(DeviceError, match="mine: threads = 4 is not allowed; give a whole number from 1 to 3"):
        check_threads("mine", 4)
