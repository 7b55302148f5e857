import json
from functools import partial
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from export.devices.local import normal_images
from export.devices.ort_cuda import OrtCuda, bind, run_bound
from export.devices.torch_cuda import TorchCuda, TorchRunner, move
from export.formats.onnx import export_onnx
from export.session import session
from ofa.core.errors import DeviceError
from ofa.devices.device import Model

HAS_GPU = torch.cuda.is_available()
HAS_PROVIDER = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
LINEAR = Model(partial(nn.Linear, 5, 3), (5,))


class Clock:
    """Events of a GPU on which the first run takes 2 ms, the next 4 ms, and so on."""

    def __init__(self):
        self.now_ms, self.runs, self.waited = 0.0, 0, 0

    def run(self, _):
        self.runs += 1
        self.now_ms += 2.0 * self.runs

    def event(self, enable_timing):
        assert enable_timing
        return Event(self)


class Event:
    def __init__(self, clock):
        self.clock = clock

    def record(self):
        self.at_ms = self.clock.now_ms

    def synchronize(self):
        self.clock.waited += 1

    def elapsed_time(self, end_event):
        return end_event.at_ms - self.at_ms


def test_events_time_each_run_and_the_first_does_not_count():
    clock = Clock()
    assert TorchRunner(clock.run, torch.zeros(1), clock.event)(3) == [4.0, 6.0, 8.0]
    assert (clock.runs, clock.waited) == (4, 4)  # each is waited for before the next begins


def test_modules_run_without_gradients_and_settings_stay_as_they_were():
    cudnn, seen = torch.backends.cudnn, []

    def record(images):
        seen.append((torch.is_inference_mode_enabled(), cudnn.benchmark, cudnn.allow_tf32, images.shape))

    before = (torch.is_inference_mode_enabled(), cudnn.benchmark, cudnn.allow_tf32)
    TorchRunner(record, torch.zeros(1, 3), Clock().event)(1)
    assert seen == [(True, True, False, (1, 3))] * 2
    assert (torch.is_inference_mode_enabled(), cudnn.benchmark, cudnn.allow_tf32) == before


@pytest.mark.parametrize("channels_last", [False, True])
def test_channels_are_last_in_images_and_convolutions_alike(channels_last):
    images = torch.from_numpy(normal_images(1, (3, 8, 8)))
    options = {"device": "cpu", "dtype": torch.float16, "channels_last": channels_last}
    network, moved = move(nn.Conv2d(3, 4, 3), images, **options)
    for tensor in (moved, network.weight):
        assert tensor.dtype == torch.float16
        assert tensor.is_contiguous(memory_format=torch.channels_last) == channels_last


def test_tokens_have_no_channels_to_put_last():
    tokens = torch.from_numpy(normal_images(1, (7, 5)))
    network, moved = move(nn.Linear(5, 3), tokens, device="cpu", dtype=torch.float32, channels_last=True)
    assert network(moved).shape == (1, 7, 3)


def test_a_bound_session_computes_what_the_session_computes(tmp_path):
    path = tmp_path / "model.onnx"
    export_onnx(LINEAR.module(), LINEAR.input_shape, path)
    model = session(path)
    images = normal_images(4, LINEAR.input_shape)
    binding = bind(model, images, "cpu")
    run_bound(model, binding)
    (expected,) = model.run(None, {"images": images})
    (bound,) = binding.copy_outputs_to_cpu()
    assert np.array_equal(bound, expected)


def test_a_bound_run_ends_when_its_output_is_there():
    steps = []
    run_bound(
        SimpleNamespace(run_with_iobinding=lambda _: steps.append("run")),
        SimpleNamespace(synchronize_outputs=lambda: steps.append("wait")),
    )
    assert steps == ["run", "wait"]


def test_pytorch_that_fails_is_one_line():
    with pytest.raises(DeviceError, match=r"^torch-cuda cannot run a model: mat1 .*; use float32 .*$"):
        TorchRunner(nn.Linear(5, 3), torch.zeros(1, 4), Clock().event)(1)


def test_the_batch_and_the_type_of_the_device_move_to_the_gpu(monkeypatch):
    moved = []
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda _: "a GPU")
    monkeypatch.setattr("torch.backends.cudnn.version", lambda: 90000)
    monkeypatch.setattr(
        "export.devices.torch_cuda.move",
        lambda module, images, **options: moved.append((images.shape, options["dtype"])) or (module, images),
    )
    device = TorchCuda(precision="float16", batch=4)
    device.load(LINEAR)
    assert moved == [((4, 5), torch.float16)]
    assert (device.description["precision"], device.description["batch"]) == ("float16", 4)


@pytest.mark.skipif(HAS_GPU, reason="there is a GPU")
def test_pytorch_without_a_gpu_is_refused():
    with pytest.raises(
        DeviceError, match=r"torch-cuda: PyTorch .* finds no GPU; install a PyTorch for the CUDA of nvidia-smi"
    ):
        TorchCuda()


@pytest.mark.skipif(HAS_PROVIDER, reason="ONNX Runtime has CUDA")
def test_onnx_runtime_without_cuda_is_refused():
    with pytest.raises(
        DeviceError, match=r"CPUExecutionProvider but no CUDAExecutionProvider; run: .* onnxruntime-gpu"
    ):
        OrtCuda()


def test_a_provider_that_does_not_start_is_refused(monkeypatch):
    create = onnxruntime.InferenceSession
    monkeypatch.setattr("export.devices.ort_cuda.ort.get_available_providers", lambda: ["CUDAExecutionProvider"])
    monkeypatch.setattr(
        "export.devices.ort_cuda.ort.InferenceSession",
        lambda path, options, providers: create(path, options, providers=["CPUExecutionProvider"]),
    )
    with pytest.raises(DeviceError, match=r"ort-cuda: ONNX Runtime .* could not start CUDAExecutionProvider"):
        OrtCuda().load(LINEAR)


class OnTheProcessor:
    """A session that says that it is on the GPU, and is not."""

    def __init__(self, path, options, providers):
        assert providers == [("CUDAExecutionProvider", {"use_tf32": "0"})]
        self.weight_types = {weight.data_type for weight in onnx.load(path).graph.initializer}
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def __getattr__(self, name):
        return getattr(self._session, name)

    def get_providers(self):
        return ["CUDAExecutionProvider"]


def test_files_of_the_precision_run_on_the_batch(monkeypatch):
    stand_in = SimpleNamespace(**vars(onnxruntime) | {"InferenceSession": OnTheProcessor})
    stand_in.get_available_providers = lambda: ["CUDAExecutionProvider"]
    bound = []
    monkeypatch.setattr("export.devices.ort_cuda.ort", stand_in)
    monkeypatch.setattr("export.devices.ort_cuda.bind", lambda *arguments: bound.append(arguments))
    device = OrtCuda(precision="float16", batch=4)
    device.load(LINEAR)
    ((session_, images, memory),) = bound
    assert session_.weight_types == {onnx.TensorProto.FLOAT16}
    assert (images.shape, memory) == ((4, 5), "cuda")
    assert (device.description["precision"], device.description["batch"]) == ("float16", 4)


def test_an_unknown_precision_is_refused():
    with pytest.raises(DeviceError, match="precision = 'int8_static' is not known; choose from float32, float16"):
        OrtCuda(precision="int8_static")
    with pytest.raises(DeviceError, match="precision = 'int8' is not known; choose from float32, float16"):
        TorchCuda(precision="int8")


@pytest.mark.skipif(not HAS_GPU, reason="PyTorch sees no GPU here")
@pytest.mark.parametrize("options", [{}, {"precision": "float16", "channels_last": True}])
def test_pytorch_times_a_network_on_the_gpu(network, options):
    device = TorchCuda(**options)
    assert json.loads(json.dumps(device.description)) == device.description
    times_ms = device.load(Model.of(network, (1, 28, 28)))(3)
    assert len(times_ms) == 3
    assert all(0 < ms < 1000 for ms in times_ms)


@pytest.mark.skipif(not (HAS_GPU and HAS_PROVIDER), reason="ONNX Runtime has no GPU here")
def test_onnx_runtime_times_a_network_on_the_gpu(network):
    device = OrtCuda()
    assert json.loads(json.dumps(device.description)) == device.description
    times_ms = device.load(Model.of(network, (1, 28, 28)))(3)
    assert len(times_ms) == 3
    assert all(0 < ms < 1000 for ms in times_ms)
