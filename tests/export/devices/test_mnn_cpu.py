import os

import numpy as np
import pytest
from torch import nn

import ofa
from export.devices.local import describe
from export.devices.mnn_cpu import MnnCpu
from export.devices.ort_cpu import OrtCpu
from ofa.core.errors import DeviceError
from ofa.devices.device import Device, Model
from ofa.devices.format import create_format
from ofa.devices.registry import device_formats

pytest.importorskip("_tools", reason="needs pip install 'ofa[mnn]'")


@pytest.mark.parametrize("threads", [1, os.cpu_count()])
@pytest.mark.parametrize("batch", [1, 4])
def test_a_network_gives_the_logits_of_onnx_runtime(network, threads, batch):
    model = Model.of(network, (1, 28, 28))
    (expected,) = OrtCpu(batch=batch).load(model).run()
    runner = MnnCpu(threads=threads, batch=batch).load(model)
    assert np.abs(expected).max() > 0.1
    assert np.abs(runner.run() - expected).max() < 1e-5 * np.abs(expected).max()
    times_ms = runner(3)
    assert len(times_ms) == 3
    assert all(0 < ms < 1000 for ms in times_ms)


def test_a_file_is_run_as_it_is(network, other_network, tmp_path):
    path = tmp_path / "model.mnn"
    create_format("mnn").write(other_network, (1, 28, 28), path, precision="float32", images=np.empty(0), metadata={})
    (expected,) = OrtCpu().load(Model.of(other_network, (1, 28, 28))).run()
    logits = MnnCpu().load(Model.of(network, (1, 28, 28), file=path)).run()
    assert np.abs(logits - expected).max() < 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("name", ["small_mobilenet_v3", "autoformer_tiny"])
def test_blocks_and_models_without_weights_run(name):
    family, device = ofa.create_family(name), MnnCpu()
    blocks = dict(family.blocks(family.space.row(family.space.smallest)))
    side = family.resolutions[0]
    kinds = {type(block): (block.build, block.input_shape(slot.size(side))) for slot, block in blocks.items() if block}
    for build, shape in [*kinds.values(), (nn.Identity, (1, 1, 1))]:
        model = Model(build, shape)
        (expected,) = OrtCpu().load(model).run()
        assert np.abs(device.load(model).run() - expected).max() <= 1e-3 * max(1.0, np.abs(expected).max())


def test_the_description_has_what_a_table_records():
    device: Device = MnnCpu(precision="float16")
    version = device.description["runtime_version"]
    assert device.description == describe("mnn-cpu", "mnn", version, precision="float16")
    assert device_formats("mnn-cpu") == ("mnn",)
    assert device_formats("ort-cpu") == ("onnx", "web")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threads": 0}, "mnn-cpu: threads = 0 is not allowed"),
        ({"batch": 0}, "mnn-cpu: batch = 0 is not allowed"),
        ({"precision": "int8_static"}, "mnn-cpu: precision = 'int8_static' is not known"),
    ],
)
def test_an_option_that_is_not_allowed_is_named(options, message):
    with pytest.raises(DeviceError, match=message):
        MnnCpu(**options)
