import platform

import pytest

from export import machine
from export.devices.local import describe
from export.machine import is_this_machine, time_runs


def test_the_system_and_the_architecture_are_named():
    assert machine.operating_system() == f"{platform.system()} {platform.machine()}"


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("processor : 0\nmodel name : Fast 3\nmodel name : Fast 4\n", "Fast 3"),
        ("Model : Raspberry Pi 5\n", "Raspberry Pi 5"),
        ("CPU part : 0xd05\nCPU part : 0xd0a\nCPU part : 0xd05\nHardware : Phone 7\n", "Phone 7"),
        ("model name :\nCPU part : 0xd05\nCPU part : 0xd0a\nCPU part : 0xd05\n", "aarch64 0xd05 0xd0a"),
        (None, "aarch64"),
    ],
)
def test_processors_are_named_on_phones_too(monkeypatch, tmp_path, text, name):
    if text is not None:
        (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(machine, "_CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(machine.platform, "processor", lambda: "")
    monkeypatch.setattr(machine.platform, "machine", lambda: "aarch64")
    assert machine.processor() == name


def test_a_description_fits_the_machine_by_processor_system_and_runtime():
    here = describe("ort-cpu", "onnxruntime", "1.0", threads=2, precision="int8_static")
    assert is_this_machine(here)
    for key in ("processor", "os", "runtime"):
        assert not is_this_machine(here | {key: "another"})
        assert not is_this_machine({name: value for name, value in here.items() if name != key})


def test_each_run_is_timed_but_the_first(monkeypatch):
    """Run `k` takes `k` ms, the one that is not timed included."""
    now_ns, runs = [0], []

    def run():
        runs.append(1)
        now_ns[0] += len(runs) * 1_000_000

    monkeypatch.setattr("export.machine.perf_counter_ns", lambda: now_ns[0])
    assert time_runs(run, 3) == [2.0, 3.0, 4.0]
    assert len(runs) == 4
    assert time_runs(run, 0) == []
