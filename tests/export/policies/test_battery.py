from types import SimpleNamespace

import psutil
import pytest

from export.policies import battery as module
from export.policies.battery import Battery, linux_battery, psutil_battery, read_battery
from ofa.core.errors import BundleError


def supply(folder, name, **files):
    (folder / name).mkdir(parents=True)
    for file, text in files.items():
        (folder / name / file).write_text(f"{text}\n")


ENERGY = {"type": "Battery", "status": "Discharging", "energy_now": 20_000_000, "energy_full": 50_000_000}
CHARGE = {
    "type": "Battery",
    "status": "Discharging",
    "charge_now": 2_000_000,
    "charge_full": 5_000_000,
    "voltage_now": 10_000_000,
    "current_now": -800_000,
}


@pytest.mark.parametrize(
    ("reading", "battery"),
    [
        (None, Battery(100.0, charging=True)),
        (SimpleNamespace(percent=37, power_plugged=False), Battery(37.0, charging=False)),
        (SimpleNamespace(percent=101, power_plugged=True), Battery(100.0, charging=True)),
        (SimpleNamespace(percent=37, power_plugged=None), Battery(37.0, charging=False)),
    ],
)
def test_readings_of_psutil_become_batteries(monkeypatch, reading, battery):
    monkeypatch.setattr(psutil, "sensors_battery", lambda: reading, raising=False)
    assert psutil_battery() == battery


def test_a_system_without_a_battery_is_on_mains_power(monkeypatch, tmp_path):
    monkeypatch.delattr(psutil, "sensors_battery", raising=False)
    assert psutil_battery() == Battery(100.0, charging=True)
    assert linux_battery(tmp_path / "missing") is None
    monkeypatch.setattr(module, "POWER_SUPPLY", tmp_path / "missing")
    assert read_battery() == Battery(100.0, charging=True)


def test_energy_and_charge_are_two_ways_to_the_same_reading(tmp_path):
    supply(tmp_path / "energy", "BAT0", **ENERGY, power_now=8_000_000)
    supply(tmp_path / "charge", "BAT0", **CHARGE)
    expected = Battery(40.0, charging=False, step_percent=0.1, capacity_wh=50.0, power_w=8.0)
    assert linux_battery(tmp_path / "energy") == expected
    assert linux_battery(tmp_path / "charge") == expected


def test_two_batteries_count_as_one_and_that_of_a_mouse_does_not_count(tmp_path):
    supply(tmp_path, "AC", type="Mains", online=0)
    supply(tmp_path, "BAT0", **ENERGY)
    supply(tmp_path, "BAT1", **ENERGY | {"energy_now": 30_000_000, "status": "Unknown"})
    supply(tmp_path, "mouse", **ENERGY | {"scope": "Device", "energy_now": 0})
    reading = linux_battery(tmp_path)
    assert (reading.percent, reading.capacity_wh, reading.power_w) == (50.0, 100.0, None)
    assert not reading.charging


@pytest.mark.parametrize("status", ["Charging", "Full", "Not charging"])
def test_a_battery_that_does_not_discharge_is_on_mains_power(tmp_path, status):
    supply(tmp_path, "BAT0", **ENERGY | {"status": status, "energy_now": 51_000_000})
    assert linux_battery(tmp_path).charging
    assert linux_battery(tmp_path).percent == 100.0


@pytest.mark.parametrize("status", ["Discharging", "Unknown", ""])
def test_a_battery_whose_status_is_not_known_is_on_battery_power(tmp_path, status):
    supply(tmp_path, "BAT0", **ENERGY | {"status": status})
    assert not linux_battery(tmp_path).charging


@pytest.mark.parametrize("broken", [{"energy_now": "?"}, {"energy_full": 0}, {"energy_full": ""}])
def test_a_battery_that_tells_nothing_is_left_to_psutil(tmp_path, monkeypatch, broken):
    supply(tmp_path, "BAT0", **ENERGY | broken)
    assert linux_battery(tmp_path) is None
    monkeypatch.setattr(module, "POWER_SUPPLY", tmp_path)
    monkeypatch.setattr(
        psutil, "sensors_battery", lambda: SimpleNamespace(percent=7, power_plugged=False), raising=False
    )
    assert read_battery() == Battery(7.0, charging=False)


@pytest.mark.parametrize("values", [{"step_percent": 0}, {"capacity_wh": -1}, {"power_w": float("nan")}])
def test_readings_that_cannot_be_are_refused(values):
    with pytest.raises(BundleError, match=f"{next(iter(values))} = "):
        Battery(50.0, False, **values)
