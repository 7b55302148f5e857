import gc
import json
import os
import stat
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
from torch import nn

from export.devices.adb import Adb, AdbMnn, AdbNcnn
from export.devices.phone_tools import MnnTool, NcnnTool, OnnxRuntimeTool
from export.formats.onnx import export_onnx
from export.formats.ort_format import write_ort
from export.session import INPUT, session
from ofa.core.errors import DeviceError, ExportError
from ofa.devices.device import Device, HostLost, Model
from ofa.devices.measure import MeasureConfig, measure

LINEAR = Model(partial(nn.Linear, 5, 3), (5,))
TOOL = OnnxRuntimeTool.program

# A stand-in for `adb`. The files of its phones are on this machine; "state.json" holds their states.
ADB = r"""
import json, os, re, shutil, subprocess, sys, time
from pathlib import Path

home = Path(__file__).parent
state = json.loads((home / "state.json").read_text())
phones, arguments = state["phones"], sys.argv[1:]
if arguments == ["devices"]:
    print("* daemon not running; starting now at tcp:5037\n* daemon started successfully")
    print("List of devices attached")
    for serial, phone in phones.items():
        print(f"{serial}\t{phone['state']}")
    print()
    sys.exit(0)
assert arguments[0] == "-s"
serial, command, rest = arguments[1], arguments[2], arguments[3:]
calls = home / f"{serial}.calls"
n_calls = len(calls.read_text().splitlines()) if calls.exists() else 0
with calls.open("a") as file:
    file.write(json.dumps([command, *rest]) + "\n")
phone = phones[serial]
if n_calls >= phone.get("dies_after", 10**9):
    push = "adb: error: failed to get feature set: " if command == "push" else "error: "
    sys.exit(push + phone.get("death", f"device '{serial}' not found"))
if phone.get("hangs"):
    time.sleep(60)
if command == "push":
    shutil.copy(*rest)
    print(f"{rest[0]}: 1 file pushed, 0 skipped. 25.3 MB/s (12345 bytes in 0.001s)")
    sys.exit(0)
assert command == "shell" and len(rest) == 1
environment = {"PATH": f"{home / 'phone_bin'}:/usr/bin:/bin", "PHONE": json.dumps(phone)}
sys.exit(subprocess.run(["/bin/sh", "-c", rest[0]], env=environment).returncode)
"""

# A run of a model takes as many milliseconds as its file has KiB; the first five take longer.
PERF_TEST = r"""
import os, sys
from pathlib import Path

assert Path(os.environ["LD_LIBRARY_PATH"], "libonnxruntime.so").exists()
phone = __import__("json").loads(os.environ["PHONE"])
if "slow" in phone:
    __import__("time").sleep(phone["slow"])
if "fails" in phone:
    print(phone["fails"], file=sys.stderr)
    sys.exit(255)
arguments, options, paths = iter(sys.argv[1:]), {}, []
for argument in arguments:
    if argument in ("-I", "-Z"):
        options[argument] = True
    elif argument in ("-e", "-m", "-r", "-x", "-y", "-o", "-S"):
        options[argument] = next(arguments)
    elif argument.startswith("-"):
        sys.exit(f"ERROR: Unknown command line flag '{argument[1:]}'")
    else:
        paths.append(Path(argument))
model, result = paths
assert options["-m"] == "times" and options["-I"] and model.suffix == ".onnx" and model.is_absolute()
seconds, n = model.stat().st_size / 1024 / 1000, int(options["-r"])
print("Disabling intra-op thread spinning between runs")
print(f"Session creation time cost: 0.0123 s\nTotal inference requests: {n}")
with result.open("a") as file:
    for run in range(n - phone.get("short", 0)):
        file.write(f"{model.parent.name},{seconds * (3 if run < 4 else 1):.6g},25440256,24,{run}\n")
"""

# A run takes a tenth of a microsecond for each byte of the only model in the folder.
MNN_BENCHMARK = r"""
import os, sys
from pathlib import Path

assert Path(os.environ["LD_LIBRARY_PATH"], "libMNN.so").exists()
folder, loop, warmup, forward, threads, precision = sys.argv[1:]
(model,) = Path(folder).iterdir()
mean = model.stat().st_size / 1e4
print(f"MNN benchmark\nForward type: **CPU** thread={threads}** precision={precision}")
print(f"--------> Benchmarking... loop = {loop}, warmup = {warmup}")
print(f"[ - ] {model.name:<24s}    max = {2 * mean:8.3f} ms  min = {mean / 2:8.3f} ms  avg = {mean:8.3f} ms")
"""

# A run takes as long as the shape and the number of layers say, rounded to hundredths of a millisecond.
BENCHNCNN = r"""
import sys
from pathlib import Path

loop, threads, powersave, gpu, cooling, *options = sys.argv[1:]
assert (powersave, gpu, cooling) == ("0", "-1", "0")
param, shape = (dict(option.split("=") for option in options)[name] for name in ("param", "shape"))
lines = Path(param).read_text().splitlines()
assert lines[0] == "7767517"
mean = float(lines[1].split()[0]) * sum(map(int, shape.strip("[]").split(","))) / 1000
print(f"loop_count = {loop}\nnum_threads = {threads}", file=sys.stderr)
print(f"{param:>20s}  min = {mean / 2:7.2f}  max = {mean * 2:7.2f}  avg = {mean:7.2f}", file=sys.stderr)
"""

GETPROP = r"""
import json, os, sys
phone = json.loads(os.environ["PHONE"])
print({
    "ro.product.model": phone.get("model", "Pixel 8"),
    "ro.soc.model": phone.get("soc", "Tensor G3"),
    "ro.board.platform": "zuma",
    "ro.build.version.release": "14",
    "ro.product.cpu.abi": "arm64-v8a",
}[sys.argv[1]])
"""


def program(path, text):
    path.write_text(f"#!{sys.executable} -IS\n{text}")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


class Lab:
    """A computer with `adb` and phones."""

    def __init__(self, home):
        self.home, self.folder = home, home / "on the phone's disk"
        (home / "phone_bin").mkdir()
        self.folder.mkdir()
        self.adb = program(home / "adb", ADB)
        program(home / "phone_bin" / "getprop", GETPROP)
        program(home / "phone_bin" / "nproc", "print(8)")
        program(self.folder / TOOL, PERF_TEST)
        (self.folder / "libonnxruntime.so").write_bytes(b"\0VERS_1.0\0\x7fOrtGetApiBase\0VERS_1.23.2\0")
        program(self.folder / MnnTool.program, MNN_BENCHMARK)
        (self.folder / "libMNN.so").touch()
        program(self.folder / NcnnTool.program, BENCHNCNN)
        self.connect(A={})

    def connect(self, **phones):
        state = {"phones": {serial: {"state": "device"} | phone for serial, phone in phones.items()}}
        (self.home / "state.json").write_text(json.dumps(state))

    def device(self, kind=Adb, **options):
        return kind(**{"adb": str(self.adb), "folder": str(self.folder)} | options)

    def calls(self, serial):
        return [json.loads(line) for line in (self.home / f"{serial}.calls").read_text().splitlines()]

    @property
    def models(self):
        return sorted(path for path in self.folder.glob("ofa_models_*/*.*") if path.suffix in (".onnx", ".mnn"))


@pytest.fixture
def lab(tmp_path):
    return Lab(tmp_path)


def test_each_run_of_a_pushed_model_is_timed_after_those_that_warm_up(lab):
    device: Device = lab.device()
    (host,) = device.hosts
    times = host.load(LINEAR)(3)
    (pushed,) = lab.models
    assert times == pytest.approx([pushed.stat().st_size / 1024] * 3, rel=1e-5)
    (logits,) = session(pushed).run(None, {INPUT: np.zeros((1, 5), dtype=np.float32)})
    assert logits.shape == (1, 3)


def test_the_performance_test_gets_the_options_it_has(lab):
    lab.device(threads=4).hosts[0].load(LINEAR)(10)
    (command,) = (words[-1] for words in lab.calls("A") if f"./{TOOL} " in words[-1])
    assert f"./{TOOL} -e cpu -m times -r 14 -x 4 -y 1 -o 99 -Z -I -S 1 " in command


def test_the_description_has_what_a_table_records(lab):
    description = lab.device(threads=2).description
    assert json.loads(json.dumps(description)) == description
    assert description.pop("torch_version")
    assert description == {
        "device": "adb",
        "runtime": "onnxruntime",
        "runtime_version": "1.23.2",
        "phone": "Pixel 8",
        "processor": "Tensor G3",
        "os": "Android 14 arm64-v8a",
        "threads": 2,
        "precision": "float32",
        "batch": 1,
    }


def test_precision_and_batch_are_those_of_the_file_that_is_pushed(lab):
    device = lab.device(batch=8, precision="float16")
    runner = device.hosts[0].load(LINEAR)
    (pushed,) = lab.models
    assert session(pushed).get_inputs()[0].shape == [8, 5]
    assert len(runner(2)) == 2
    assert {weight.data_type for weight in onnx.load(pushed).graph.initializer} == {onnx.TensorProto.FLOAT16}
    assert (device.description["precision"], device.description["batch"]) == ("float16", 8)


def test_the_file_of_a_model_is_pushed_as_it_is_and_keeps_its_format(lab, tmp_path):
    path = tmp_path / "level.onnx"
    export_onnx(LINEAR.module(), (5,), path)
    written = write_ort(path)
    runner = lab.device().hosts[0].load(Model.of(nn.Identity(), (5,), written))
    assert Path(runner.remote).suffix == ".ort"
    assert Path(runner.remote).read_bytes() == written.read_bytes()


def test_mnn_is_timed_by_its_own_benchmark(lab):
    pytest.importorskip("_tools", reason="needs the extra mnn")
    device: Device = lab.device(AdbMnn, threads=2, precision="float16")
    runner = device.hosts[0].load(LINEAR)
    mean_ms = Path(runner.remote).stat().st_size / 1e4
    assert runner(3) == pytest.approx([mean_ms] * 3, abs=1e-3)
    assert "0 2 1" in lab.calls("A")[-1][-1]
    assert (device.description["runtime"], device.description["precision"]) == ("mnn", "float16")
    del runner
    runner = device.hosts[0].load(LINEAR)
    assert [str(path) for path in lab.models] == [runner.remote]


def test_ncnn_is_timed_by_its_own_benchmark_from_the_file_without_weights(lab, tmp_path):
    pytest.importorskip("ncnn", reason="needs the extra ncnn")
    device: Device = lab.device(AdbNcnn)
    model = Model(partial(nn.Conv2d, 1, 4, 3), (1, 10, 12))
    runner = device.hosts[0].load(model)
    assert Path(runner.remote).suffix == ".param"
    layers = int(Path(runner.remote).read_text().splitlines()[1].split()[0])
    assert runner(3) == pytest.approx([layers * 23 / 1000] * 3, abs=0.005)
    assert "'shape=[12,10,1]'" in lab.calls("A")[-1][-1]
    assert device.hosts[0].load(Model(nn.ReLU, (1, 1, 1)))(2) == pytest.approx([0.01] * 2)
    (tmp_path / "level.ncnn").write_bytes(b"no archive")
    with pytest.raises(DeviceError, match=r"level\.ncnn is not a model of the format ncnn; export it again"):
        device.hosts[0].load(Model(nn.ReLU, (1, 1, 1), tmp_path / "level.ncnn"))


@pytest.mark.parametrize("kind", [Adb, AdbMnn])
def test_several_devices_on_one_phone_leave_each_other_s_models(lab, kind):
    if kind is AdbMnn:
        pytest.importorskip("_tools", reason="needs the extra mnn")
    one = lab.device()
    runner = one.hosts[0].load(LINEAR)
    other = lab.device(kind)
    assert len(runner(2)) == 2
    assert len(other.hosts[0].load(LINEAR)(2)) == 2
    del other
    gc.collect()
    assert len(runner(2)) == 2


@pytest.mark.parametrize("kind", [AdbMnn, AdbNcnn])
def test_a_program_that_is_not_there_is_named(lab, kind):
    pytest.importorskip({AdbMnn: "_tools", AdbNcnn: "ncnn"}[kind])
    (lab.folder / kind.tool.program).unlink()
    with pytest.raises(DeviceError, match=f"has no program .*{kind.tool.program}; build it for Android"):
        lab.device(kind)


@pytest.mark.parametrize("tool", [MnnTool(), NcnnTool()])
@pytest.mark.parametrize("printed", ["", "avg", "max = 1.0 ms  min = 1.0 ms  avg = x ms", "min = 1 max = 2 avg ="])
def test_what_a_benchmark_prints_beside_a_mean_is_no_time(tool, printed):
    assert tool.times_ms(printed, 3) == []


def test_a_mean_that_is_printed_as_zero_is_half_of_what_can_be_told_from_it():
    assert NcnnTool().times_ms("x  min =    0.00  max =    0.01  avg =    0.00", 2) == [0.005, 0.005]
    assert MnnTool().times_ms("[ - ] x  max = 0.001 ms  min = 0.000 ms  avg = 0.000 ms", 2) == [0.0005, 0.0005]


def test_a_phone_that_does_not_name_its_chip_has_a_platform(lab):
    lab.connect(A={"soc": ""})
    assert lab.device().description["processor"] == "zuma"


def test_a_library_without_a_version_is_unknown(lab):
    (lab.folder / "libonnxruntime.so").write_bytes(b"\0\x7f")
    assert lab.device().description["runtime_version"] == "unknown"


def test_models_are_removed_with_their_runners_and_the_phone(lab):
    device = lab.device()
    kept, gone = (device.hosts[0].load(LINEAR) for _ in range(2))
    assert len(lab.models) == 2
    del gone
    third = device.hosts[0].load(LINEAR)
    assert {str(path) for path in lab.models} == {kept.remote, third.remote}
    del device, kept, third
    gc.collect()
    assert not list(lab.folder.glob("ofa_models_*"))
    assert (lab.folder / TOOL).exists()


def test_files_that_a_killed_process_left_are_removed_after_a_day(lab):
    for name, age_h in (("ofa_models_old", 49), ("ofa_models_new", 1), ("mine", 49)):
        (lab.folder / name).mkdir()
        (lab.folder / name / "a.onnx").touch()
        then = time.time() - 3600 * age_h
        os.utime(lab.folder / name, (then, then))
    assert lab.device().hosts
    assert [path.parent.name for path in lab.models] == ["ofa_models_new"]
    assert (lab.folder / "mine" / "a.onnx").exists()


def test_two_phones_share_the_models_and_one_that_dies_midway_leaves_its_own_to_the_other(lab):
    lab.connect(A={}, B={"dies_after": 14})
    device = lab.device(serials=["A", "B"])
    models = {str(width): Model(partial(nn.Linear, width, width), (width,)) for width in (8, 24, 40, 56)}
    config = MeasureConfig(min_rounds=2, max_rounds=3)
    timings = measure(device, models, models["24"], np.random.default_rng(0), config=config)
    assert list(timings) == list(models)
    assert all(timing.repeats >= 2 for timing in timings.values())
    sizes = [1024 * timing.median_ms for timing in timings.values()]
    weights = [4 * (width**2 + width) for width in map(int, models)]
    assert np.diff(sizes) == pytest.approx(np.diff(weights), rel=0.05)
    pushes = [sum(words[0] == "push" for words in lab.calls(serial)) for serial in "AB"]
    assert pushes == [6, 3]  # each its half and the reference, then A the half of B and the reference again


@pytest.mark.parametrize("death", ["device 'A' not found", "device offline", "device unauthorized.\nTry", "closed"])
@pytest.mark.parametrize("when", ["load", "run"])
def test_a_phone_that_is_gone_is_a_lost_host(lab, death, when):
    (host,) = lab.device().hosts
    runner = host.load(LINEAR)
    lab.connect(A={"dies_after": 0, "death": death})
    with pytest.raises(HostLost, match=f"phone A does not answer: .*{death.splitlines()[0]}"):
        host.load(LINEAR) if when == "load" else runner(1)


def test_the_only_phone_that_dies_ends_the_measuring(lab):
    lab.connect(A={"dies_after": 12})
    with pytest.raises(DeviceError, match="'adb' is lost, 1 of 1 models are not measured"):
        measure(lab.device(), {"one": LINEAR}, LINEAR, np.random.default_rng(0))


def test_a_phone_that_hangs_is_a_lost_host(lab, monkeypatch):
    monkeypatch.setattr("export.devices.phone._ANSWER_S", 0.2)
    (host,) = lab.device(timeout_s=5.0).hosts
    runner = host.load(LINEAR)
    lab.connect(A={"hangs": True})
    object.__setattr__(host, "timeout_s", 0.2)
    with pytest.raises(HostLost, match=r"phone A does not answer: no end after 0\.2 s"):
        runner(1)


def test_a_model_that_takes_too_long_on_a_phone_that_answers(lab):
    (host,) = lab.device(timeout_s=5.0).hosts
    runner = host.load(LINEAR)
    lab.connect(A={"slow": 3})
    object.__setattr__(host, "timeout_s", 0.5)
    with pytest.raises(DeviceError, match=r"phone A cannot run .*no end after 0\.5 s; raise timeout_s"):
        runner(1)


def test_the_error_shows_what_the_performance_test_prints(lab):
    (host,) = lab.device().hosts
    runner = host.load(LINEAR)
    lab.connect(A={"fails": "Load model failed: Unsupported model IR version: 11, max supported IR version: 10"})
    with pytest.raises(DeviceError, match=r"phone A cannot run .*Unsupported model IR version: 11"):
        runner(1)


def test_times_that_are_missing_are_an_error(lab):
    (host,) = lab.device().hosts
    runner = host.load(LINEAR)
    lab.connect(A={"short": 2})
    with pytest.raises(DeviceError, match=r"did not print the times of 3 runs, but .*ofa_models.*; use a newer"):
        runner(3)


def test_without_adb_the_error_says_what_to_install(lab):
    with pytest.raises(DeviceError, match=r"program '/nowhere/adb' cannot be run \(No such file .*platform-tools"):
        lab.device(adb="/nowhere/adb")


def test_the_path_of_adb_may_begin_at_the_home_directory(lab, monkeypatch):
    monkeypatch.setenv("HOME", str(lab.home))
    assert lab.device(adb="~/adb").hosts


def test_a_model_that_cannot_be_exported_is_not_pushed(lab):
    (host,) = lab.device().hosts
    with pytest.raises(ExportError, match="pool to a size that divides"):
        host.load(Model(partial(nn.AdaptiveAvgPool2d, 3), (1, 10, 10)))
    assert not lab.models


def test_a_file_that_is_no_program_is_refused(lab):
    with pytest.raises(DeviceError, match=r"cannot be run \(Permission denied\)"):
        lab.device(adb=str(lab.home / "state.json"))


def test_without_a_phone_the_error_says_how_to_connect_one(lab):
    lab.connect()
    with pytest.raises(DeviceError, match="no phone is connected; connect one, switch its USB debugging on"):
        lab.device()


@pytest.mark.parametrize("serials", [[], ["A"], "A"])
@pytest.mark.parametrize(
    ("state", "step"),
    [
        ("unauthorized", "allow this computer's USB debugging on its screen"),
        ("offline", "reconnect it, or run: adb kill-server"),
        ("no permissions (missing udev rules? user is in the plugdev group); see [http://x]", "udev rule"),
        ("recovery", "restart it"),
    ],
)
def test_a_phone_that_is_not_ready_is_refused_with_the_next_step(lab, state, step, serials):
    lab.connect(A={"state": state})
    with pytest.raises(DeviceError, match=rf"phone A is in state '{state.split()[0]}.*{step}"):
        lab.device(serials=serials)


def test_with_several_phones_connected_some_must_be_named(lab):
    lab.connect(A={}, B={}, C={"state": "offline"})
    with pytest.raises(DeviceError, match="2 phones are connected; name those to use in serials: A, B"):
        lab.device()
    assert len(lab.device(serials=["B"]).hosts) == 1
    with pytest.raises(DeviceError, match="phone 'D' is not connected; connected: A, B, C"):
        lab.device(serials=["A", "D"])
    with pytest.raises(DeviceError, match="has a phone twice"):
        lab.device(serials=["A", "A"])


def test_the_only_phone_that_is_ready_needs_no_name(lab):
    lab.connect(A={"state": "offline"}, B={})
    assert [phone.serial for phone in lab.device().hosts] == ["B"]


def test_phones_of_two_kinds_are_not_measured_together(lab):
    lab.connect(A={}, B={"model": "Galaxy S24", "soc": "SM8650"})
    with pytest.raises(
        DeviceError, match="adb: A has phone 'Pixel 8', B has 'Galaxy S24'; measure on hosts of one kind"
    ):
        lab.device(serials=["A", "B"])


@pytest.mark.parametrize("there", [True, False])
def test_a_phone_without_the_performance_test_is_refused(lab, there):
    (lab.folder / TOOL).unlink()
    if there:  # but may not be run
        (lab.folder / TOOL).touch()
    with pytest.raises(DeviceError, match=rf"phone A has no program .*{TOOL}; build it .*adb -s A push {TOOL} lib"):
        lab.device()


def test_a_phone_that_dies_before_it_is_ready_is_a_device_error(lab):
    lab.connect(A={"dies_after": 1})
    with pytest.raises(DeviceError, match="phone A does not answer: error: device 'A' not found; reconnect it"):
        lab.device()


def test_threads_are_at_most_the_phones_processors(lab):
    with pytest.raises(DeviceError, match="threads = 9 is not allowed; phone A has 8 processors"):
        lab.device(threads=9)


@pytest.mark.parametrize(
    ("option", "wrong", "why"),
    [
        ("serials", 5, "give a list of strings"),
        ("serials", [5], "give a list of strings"),
        ("adb", 5, "give the name or the path of the program"),
        ("adb", "", "give the name or the path of the program"),
        ("folder", "ofa", "is not an absolute path"),
        ("folder", 5, "is not an absolute path"),
    ],
)
def test_options_of_another_kind_are_refused(lab, option, wrong, why):
    with pytest.raises(DeviceError, match=f"adb: {option} = .*{why}"):
        lab.device(**{option: wrong})


def test_a_folder_is_never_read_as_a_command(lab):
    odd = lab.home / "a; touch hacked; $(touch hacked) 'b"
    os.rename(lab.folder, odd)
    device = lab.device(folder=f"{odd}/")
    assert len(device.hosts[0].load(LINEAR)(2)) == 2
    assert not list(Path.cwd().glob("hacked*"))
    assert not list(lab.home.rglob("hacked"))
