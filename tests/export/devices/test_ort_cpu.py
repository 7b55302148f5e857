from functools import partial

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

from export.devices.local import normal_images
from export.devices.ort_cpu import OrtCpu
from export.formats.onnx import export_onnx
from export.session import INPUT, session
from ofa.core.errors import DeviceError
from ofa.devices.device import Device, Model


def test_a_loaded_model_gives_the_time_of_each_run(family):
    device: Device = OrtCpu()
    (host,) = device.hosts
    row = family.space.row(family.space.smallest)
    for slot, block in family.blocks(row):
        if block is not None:
            times_ms = host.load(Model(block.build, block.input_shape(slot.size(28))))(3)
            assert len(times_ms) == 3
            assert all(0 < ms < 1000 for ms in times_ms)


def test_the_exported_model_runs_at_batch_1_on_normal_inputs():
    model = Model(partial(nn.Linear, 5, 3), (5,))
    (logits,) = OrtCpu().load(model).run()
    inputs = np.random.default_rng(0).standard_normal((1, 5), dtype=np.float32)
    module = model.module()
    assert logits == pytest.approx(inputs @ module.weight.detach().numpy().T + module.bias.detach().numpy(), rel=1e-5)


def test_a_run_takes_the_whole_batch():
    device = OrtCpu(batch=4)
    model = Model(partial(nn.Linear, 5, 3), (5,))
    (logits,) = device.load(model).run()
    assert logits == pytest.approx(model.module()(torch.from_numpy(normal_images(4, (5,)))).detach().numpy(), rel=1e-5)
    assert device.description["batch"] == 4


def test_the_description_names_the_runtime():
    description = OrtCpu(threads=1).description
    assert description["runtime_version"] == onnxruntime.__version__
    assert (description["device"], description["threads"], description["precision"]) == ("ort-cpu", 1, "float32")


@pytest.mark.parametrize("precision", ["float16", "int8_static"])
def test_the_model_in_the_precision_of_the_device_is_timed(family, precision):
    device = OrtCpu(precision=precision)
    assert device.description["precision"] == precision
    row = family.space.row(family.space.smallest)
    blocks = [(block.build, block.input_shape(slot.size(28))) for slot, block in family.blocks(row) if block]
    for build, shape in [*blocks, (nn.Identity, (1, 1, 1)), (partial(nn.Linear, 16, 16), (5, 16))]:
        runner, plain = device.load(Model(build, shape)), OrtCpu().load(Model(build, shape))
        (converted,), (expected,) = runner.run(), plain.run()
        assert converted.shape == expected.shape
        assert (converted == expected).all() == (build is nn.Identity)
        assert len(runner(2)) == 2


def test_in_dynamic_int8_linear_layers_are_timed_in_integers():
    model = Model(partial(nn.Linear, 16, 16), (5, 16))
    (converted,), (expected,) = (OrtCpu(precision=p).load(model).run() for p in ("int8_dynamic", "float32"))
    assert 0 < np.abs(converted - expected).max() < 0.05


@pytest.mark.parametrize("precision", ["float32", "float16", "int8_static"])
def test_a_model_with_a_file_is_measured_with_that_very_file(tmp_path, precision):
    path = tmp_path / "level.onnx"
    linear = Model(partial(nn.Linear, 5, 3), (5,)).module()
    export_onnx(linear, (5,), path)
    (logits,) = OrtCpu(precision=precision).load(Model.of(nn.Linear(5, 3), (5,), path)).run()
    assert np.array_equal(logits, session(path).run(None, {INPUT: normal_images(1, (5,))})[0])


def test_the_threads_are_those_of_the_session(monkeypatch):
    threads = []
    session = __import__("export.session").session.session
    monkeypatch.setattr("export.devices.ort_cpu.session", lambda path, n: threads.append(n) or session(path, n))
    monkeypatch.setattr("export.devices.local.os.cpu_count", lambda: 2)
    OrtCpu(threads=2).load(Model(nn.Identity, (1,)))
    assert threads == [2]


def test_an_unknown_precision_is_refused():
    with pytest.raises(
        DeviceError, match=r"ort-cpu: precision = 'int4' is not known; choose from float32, float16, int8_dynamic"
    ):
        OrtCpu(precision="int4")
