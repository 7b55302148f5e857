import os
import subprocess
import sys
import threading
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from torch import nn

import ofa
from export.devices.local import describe
from export.devices.openvino_cpu import OpenvinoCpu
from export.devices.ort_cpu import OrtCpu
from ofa.core.errors import DeviceError
from ofa.devices.device import Device, Model

# Not `importorskip`, which would import OpenVINO with its telemetry.
needs_openvino = pytest.mark.skipif(find_spec("openvino") is None, reason="needs the extra openvino")


def logits(runner):
    return runner.run()[0]


@needs_openvino
@pytest.mark.parametrize("threads", [1, os.cpu_count()])
def test_a_network_gives_the_logits_of_onnx_runtime(network, threads):
    model = Model.of(network, (1, 28, 28))
    onnxruntime = OrtCpu().load(model)
    (expected,) = onnxruntime.run()
    runner = OpenvinoCpu(threads=threads).load(model)
    assert np.abs(expected).max() > 0.1
    assert np.abs(logits(runner) - expected).max() < 1e-5 * np.abs(expected).max()
    times_ms = runner(3)
    assert len(times_ms) == 3
    assert all(0 < ms < 1000 for ms in times_ms)


@needs_openvino
def test_a_run_takes_the_whole_batch(network):
    model = Model.of(network, (1, 28, 28))
    (expected,) = OrtCpu(batch=4).load(model).run()
    assert len(np.unique(expected, axis=0)) == 4
    device = OpenvinoCpu(batch=4)
    assert np.abs(logits(device.load(model)) - expected).max() < 1e-5 * np.abs(expected).max()
    assert device.description["batch"] == 4


@needs_openvino
def test_blocks_and_models_without_weights_run_at_batch_1():
    family, device = ofa.create_family("autoformer_tiny"), OpenvinoCpu()
    blocks = dict(family.blocks(family.space.row(family.space.smallest)))
    kinds = {type(block): (block.build, block.input_shape(slot.size(224))) for slot, block in blocks.items() if block}
    for build, shape in [*kinds.values(), (nn.Identity, (1, 1, 1)), (partial(nn.Linear, 5, 3), (5,))]:
        model = Model(build, shape)
        onnxruntime, runner = OrtCpu().load(model), device.load(model)
        (expected,) = onnxruntime.run()
        assert expected.shape[0] == 1
        assert np.abs(logits(runner) - expected).max() < 1e-5 * max(1.0, np.abs(expected).max())


@needs_openvino
@pytest.mark.parametrize(("precision", "tolerance"), [("float16", 1e-2), ("int8_static", 0.1)])
def test_in_another_precision_it_gives_the_logits_of_onnx_runtime(network, precision, tolerance):
    model = Model.of(network, (1, 28, 28))
    (expected,) = OrtCpu(precision=precision, batch=8).load(model).run()
    device = OpenvinoCpu(precision=precision, batch=8)
    actual = logits(device.load(model))
    assert np.abs(actual - expected).max() < tolerance * np.abs(expected).max()
    assert np.corrcoef(actual.ravel(), expected.ravel())[0, 1] > 0.99
    assert device.description["precision"] == precision


@needs_openvino
def test_static_int8_runs_in_integer_kernels(network):
    infer = OpenvinoCpu(precision="int8_static").load(Model.of(network, (1, 28, 28))).run.func
    nodes = [node.get_rt_info() for node in infer.__self__.get_compiled_model().get_runtime_model().get_ops()]
    kinds = [(info["layerType"].astype(str), info["runtimePrecision"].astype(str)) for info in nodes]
    convolutions = [precision for kind, precision in kinds if kind == "Convolution"]
    assert set(convolutions) <= {"i8", "u8"}
    assert len(convolutions) > 5


@needs_openvino
def test_it_runs_one_stream_in_float32():
    infer = OpenvinoCpu(threads=1).load(Model(partial(nn.Linear, 5, 3), (5,))).run.func
    compiled = infer.__self__.get_compiled_model()
    names = ("NUM_STREAMS", "INFERENCE_NUM_THREADS", "INFERENCE_PRECISION_HINT")
    streams, threads, precision = (str(compiled.get_property(name)) for name in names)
    assert (streams, threads) == ("1", "1")
    assert "float32" in precision


@needs_openvino
@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux tells what is mapped")
def test_weights_are_not_mapped_one_by_one():
    def n_maps():
        return len(Path("/proc/self/maps").read_text().splitlines())

    def transformer_like():
        layers = [layer for _ in range(40) for layer in (nn.Linear(100, 100), nn.GELU())]
        return Model.of(nn.Sequential(*layers), (50, 100))

    device = OpenvinoCpu()
    device.load(transformer_like())(1)  # what a first model costs
    before = n_maps()
    runners = [device.load(transformer_like()) for _ in range(3)]
    for runner in runners:
        runner(1)
    assert n_maps() - before < 20 * len(runners)


@needs_openvino
def test_the_description_has_what_a_table_records():
    device: Device = OpenvinoCpu()
    version = device.description["runtime_version"]
    assert device.description == describe("openvino-cpu", "openvino", version, threads=1)
    assert version


@needs_openvino
def test_openvino_sends_nothing_when_it_is_imported():
    before = set(threading.enumerate())
    OpenvinoCpu()
    assert "openvino_telemetry.main" not in sys.modules
    assert "openvino_telemetry" not in sys.modules
    assert set(threading.enumerate()) <= before


@needs_openvino
def test_a_model_that_openvino_refuses_is_one_line(monkeypatch):
    class Core:
        def read_model(self, _):
            raise RuntimeError("Check failed\nat line 5")

    device = OpenvinoCpu()
    monkeypatch.setattr(device, "_core", Core())
    with pytest.raises(
        DeviceError, match=r"^openvino-cpu cannot load a model: Check failed at line 5; use float32 .*$"
    ):
        device.load(Model(nn.Identity, (1,)))


def test_without_openvino_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(
        DeviceError, match=r"OpenVINO is not installed .*; run in the checkout: pip install -e '\.\[openvino\]'"
    ):
        OpenvinoCpu()
    assert "openvino_telemetry" not in sys.modules


def test_an_unknown_precision_is_refused():
    with pytest.raises(
        DeviceError, match="precision = 'int8_dynamic' is not known; choose from float32, float16, int8_static"
    ):
        OpenvinoCpu(precision="int8_dynamic")


DROPPED_IN_ORDER = """
import faulthandler, gc, signal
from functools import partial
from torch import nn
from export.devices.openvino_cpu import OpenvinoCpu
from ofa.devices.device import Model
faulthandler.enable()  # handlers run on a stack of their own
seen = []
signal.signal(signal.SIGTERM, lambda *_: seen.append("handled"))
used = [(device, device.load(Model(partial(nn.Linear, 5, 3), (5,)))) for device in (OpenvinoCpu(), OpenvinoCpu())]
while used:
    used.pop(0)
    gc.collect()
signal.raise_signal(signal.SIGTERM)
print(*seen)
"""


@needs_openvino
def test_signals_are_handled_after_devices_were_dropped_in_the_order_they_were_made():
    done = subprocess.run([sys.executable, "-c", DROPPED_IN_ORDER], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "handled"), done.stderr
