import platform

import pytest

from export import machine


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
