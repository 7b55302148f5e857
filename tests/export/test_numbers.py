"""Every numeric option of export: a number out of range, or something else than a number, is refused in one line."""

import math

import pytest
import torch
from torch import nn

import export.agent.__main__
from export.agent.config import AgentConfig, Limits
from export.devices.adb import Adb
from export.devices.openvino_cpu import OpenvinoCpu
from export.devices.ort_cpu import OrtCpu
from export.devices.remote import Remote
from export.devices.torch_cuda import TorchCuda
from export.formats.onnx import export_onnx
from export.policies.battery import Battery
from export.policies.endurance import EndurancePolicy
from export.policies.latency_guard import LatencyGuard
from export.policies.policy import BatteryPolicy
from export.preprocess import Preprocess
from export.replay import replay
from export.runtime import Runtime
from export.session import session
from ofa.core.errors import DeviceError, OfaError

TOKEN = "a-token-that-only-tests-know"
VALUES = [0, 1, -1, 0.5, math.nan, math.inf, 10**30, 1e300, True, "1", None, [1]]
LINEAR = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
UNREACHABLE = "http://127.0.0.1:9"
# Each option with the values above that it accepts; `context` is a folder with what the option needs.
OPTIONS = {
    "ort-cpu: threads": (lambda value, _: OrtCpu(threads=value), [1]),
    "openvino-cpu: threads": (lambda value, _: OpenvinoCpu(threads=value), [1]),
    "torch-cuda: channels_last": (lambda value, _: TorchCuda(channels_last=value), [True]),
    "adb: threads": (lambda value, _: Adb(adb="/nowhere", threads=value), [1]),
    "adb: timeout_s": (lambda value, _: Adb(adb="/nowhere", timeout_s=value), [1, 0.5]),
    "remote: timeout_s": (
        lambda value, folder: Remote([UNREACHABLE], str(folder / "token"), timeout_s=value),
        [1, 0.5],
    ),
    "agent: threads": (lambda value, _: Limits(threads=value), [1]),
    "agent: max_mib": (lambda value, _: Limits(max_mib=value), [1]),
    "agent: max_models": (lambda value, _: Limits(max_models=value), [1]),
    "agent: max_seconds": (lambda value, _: Limits(max_seconds=value), [1, 0.5]),
    "agent: port": (lambda value, _: AgentConfig(token=TOKEN, port=value), [0, 1]),
    "agent: patience_s": (lambda value, _: AgentConfig(token=TOKEN, patience_s=value), [1, 0.5]),
    "threads": (lambda value, folder: session(folder / "model.onnx", value), [1]),
    "runtime: threads": (lambda value, folder: Runtime(folder / "bundle", threads=value), [1]),
    "runtime: poll_seconds": (
        lambda value, folder: Runtime(folder / "bundle", poll_seconds=value),
        [0, 1, 0.5, math.inf, 10**30, 1e300],
    ),
    "steps": (lambda value, folder: run_replay(folder, steps=value), []),
    "charging_steps": (lambda value, folder: run_replay(folder, charging_steps=value), [0, 1]),
    "images_per_step": (lambda value, folder: run_replay(folder, images_per_step=value), [1]),
    "hysteresis_percent": (lambda value, _: BatteryPolicy((50,), value), [0, 1, 0.5]),
    "thresholds_percent": (lambda value, _: BatteryPolicy((value,)), [0, 1, 0.5]),
    "n_levels": (lambda value, _: BatteryPolicy.even(value), [1]),
    "step_percent": (lambda value, _: Battery(50.0, False, step_percent=value), [1, 0.5]),
    "power_w": (lambda value, _: Battery(50.0, False, power_w=value), [0, 1, 0.5, None]),
    "hours": (lambda value, _: endurance(hours=value), [1, 0.5]),
    "energies_mj": (lambda value, _: endurance(energies_mj=(value,)), [1, 0.5]),
    "top1_percent": (lambda value, _: endurance(top1_percent=(value,)), [0, 1, 0.5]),
    "requests_per_hour": (lambda value, _: endurance(requests_per_hour=value), [1, 0.5, None]),
    "capacity_wh": (lambda value, _: endurance(capacity_wh=value), [1, 0.5, None]),
    "reserve_percent": (lambda value, _: endurance(reserve_percent=value), [0, 1, 0.5]),
    "latencies_ms": (lambda value, _: LatencyGuard(BatteryPolicy(()), (value,), 1.0), [1, 0.5]),
    "bound_ms": (lambda value, _: LatencyGuard(BatteryPolicy(()), (1.0,), value), [1, 0.5]),
    "patience_s": (lambda value, _: LatencyGuard(BatteryPolicy(()), (1.0,), 1.0, value), [0, 1, 0.5]),
    "resolution": (lambda value, _: Preprocess(value, 1, (0.5,), (0.5,)), [1]),
    "in_channels": (lambda value, _: Preprocess(8, value, (0.5,), (0.5,)), [1]),
    "tolerance": (
        lambda value, folder: export_onnx(
            LINEAR, (4,), folder / "exported.onnx", images=[torch.zeros(1, 4)], tolerance=value
        ),
        [0, 1, 0.5, math.inf, 10**30, 1e300],
    ),
}


def endurance(**options):
    return EndurancePolicy(**{"hours": 8.0, "energies_mj": (1.0,), "top1_percent": (50.0,)} | options)


def run_replay(folder, **options):
    images = [torch.zeros(8, 8, dtype=torch.uint8).numpy()]
    return replay(folder / "bundle", images, **{"steps": 2, "charging_steps": 0, "images_per_step": 1} | options)


@pytest.fixture
def context(tmp_path, levels, write):
    (tmp_path / "token").write_text(TOKEN)
    write(tmp_path / "bundle", levels)
    export_onnx(LINEAR, (4,), tmp_path / "model.onnx")
    return tmp_path


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_takes_what_it_can_use_and_refuses_the_rest_in_one_line(name, context):
    use, accepted = OPTIONS[name]
    for value in VALUES:
        refused = None
        try:
            use(value, context)
        except OfaError as error:
            refused = str(error)
        about_the_value = refused is not None and refused.startswith(f"{name} = ")
        expected = not any(value is other or (value == other and type(value) is type(other)) for other in accepted)
        assert about_the_value == expected, (value, refused)
        assert refused is None or "\n" not in refused


@pytest.mark.parametrize("name", ["port", "threads", "max-mib", "max-models", "max-seconds"])
def test_an_option_of_the_command_is_refused_in_one_line(name, context, capsys, monkeypatch):
    def stop(_):
        raise DeviceError("accepted")

    monkeypatch.setattr(export.agent.__main__, "serve", stop)
    for value in ("0", "1", "-1", "0.5", "nan", "inf", "1e300", "1" + "0" * 30, "true", "one", ""):
        assert export.agent.__main__.main(["--token-file", str(context / "token"), f"--{name}", value]) == 2
        printed = capsys.readouterr().err
        assert printed.count("\n") == 1
        accepted = {"port": ["0", "1"], "max-seconds": ["1", "0.5"]}.get(name, ["1"])
        assert (printed == "error: accepted\n") == (value in accepted), printed
