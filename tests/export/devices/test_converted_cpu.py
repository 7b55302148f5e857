import os

import numpy as np
import pytest
from torch import nn

import ofa
from export.devices.local import describe
from export.devices.ort_cpu import OrtCpu
from export.model_files import FILE_KINDS
from ofa.core.errors import DeviceError, ExportError
from ofa.devices.device import Device, Model
from ofa.devices.registry import create_device, device_precisions


@pytest.fixture
def create(other_format):
    """Creates the device that runs files of `other_format`."""
    return lambda **options: create_device(FILE_KINDS[other_format.name].device, **options)


@pytest.mark.parametrize("threads", [1, os.cpu_count()])
def test_a_network_gives_the_logits_of_onnx_runtime(network, create, threads):
    model = Model.of(network, (1, 28, 28))
    (expected,) = OrtCpu().load(model).run()
    runner = create(threads=threads).load(model)
    assert np.abs(expected).max() > 0.1
    assert np.abs(runner.run() - expected).max() < 1e-5 * np.abs(expected).max()
    times_ms = runner(3)
    assert len(times_ms) == 3
    assert all(0 < ms < 1000 for ms in times_ms)


def test_a_file_is_run_as_it_is(network, other_network, other_file, create):
    (expected,) = OrtCpu().load(Model.of(network, (1, 28, 28))).run()
    logits = create().load(Model.of(other_network, (1, 28, 28), file=other_file)).run()
    assert np.abs(logits - expected).max() < 1e-5 * np.abs(expected).max()


def test_blocks_and_a_model_without_weights_run(create):
    family, device = ofa.create_family("small_mobilenet_v3"), create()
    blocks = dict(family.blocks(family.space.row(family.space.smallest)))
    side = family.resolutions[0]
    kinds = {type(block): (block.build, block.input_shape(slot.size(side))) for slot, block in blocks.items() if block}
    for build, shape in [*kinds.values(), (nn.ReLU, (1, 1, 1))]:
        model = Model(build, shape)
        (expected,) = OrtCpu().load(model).run()
        assert np.abs(device.load(model).run() - expected).max() <= 1e-3 * max(1.0, np.abs(expected).max())


def test_each_precision_runs_and_the_description_has_it(network, other_format, create):
    kind = FILE_KINDS[other_format.name]
    (expected,) = OrtCpu().load(Model.of(network, (1, 28, 28))).run()
    for precision in device_precisions(kind.device):
        device: Device = create(precision=precision)
        version = device.description["runtime_version"]
        assert device.description == describe(kind.device, kind.runtime, version, precision=precision)
        logits = device.hosts[0].load(Model.of(network, (1, 28, 28))).run()
        assert np.abs(logits - expected).max() < (1e-4 if precision == "float32" else 0.5) * np.abs(expected).max()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"threads": 0}, "-cpu: threads = 0 is not allowed"),
        ({"precision": "int4"}, "-cpu: precision = 'int4' is not known; choose from float32"),
        ({"turbo": True}, "has no option 'turbo'"),
    ],
)
def test_an_option_that_is_not_allowed_is_named(create, options, message):
    with pytest.raises(DeviceError, match=message):
        create(**options)


def test_a_precision_that_the_format_lacks_is_refused_and_nothing_is_written(network, other_format, tmp_path):
    path = tmp_path / f"model{other_format.suffix}"
    with pytest.raises((DeviceError, ExportError), match=r"precision = 'int4' is not known; choose from float32"):
        other_format.write(network, (1, 28, 28), path, precision="int4", images=np.empty(0), metadata={})
    assert not list(tmp_path.iterdir())
