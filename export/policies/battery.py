"""Readings of the battery: from Linux's files, or by psutil; any function that returns a `Battery` serves as well."""

from dataclasses import dataclass
from pathlib import Path

import psutil

from export.errors import check_number
from ofa.core.errors import BundleError

POWER_SUPPLY = Path("/sys/class/power_supply")
_ON_MAINS = ("Charging", "Full", "Not charging")


@dataclass(frozen=True)
class Battery:
    """A reading of the battery.

    Attributes:
        percent: the charge, 0 to 100.
        charging: whether the device is on mains power.
        step_percent: the smallest change of `percent` that a reading shows.
        capacity_wh: energy of a full battery in watt-hours; None if the system does not tell.
        power_w: what the whole machine draws from it in watts; None if the system does not tell.
    """

    percent: float
    charging: bool
    step_percent: float = 1.0
    capacity_wh: float | None = None
    power_w: float | None = None

    def __post_init__(self) -> None:
        check_number("step_percent", self.step_percent, 1e-6, 100, kind=BundleError)
        for name, value in (("capacity_wh", self.capacity_wh), ("power_w", self.power_w)):
            if value is not None:
                check_number(name, value, 0, 1e9, kind=BundleError)


ON_MAINS = Battery(100.0, charging=True)


def read_battery() -> Battery:
    """Read this machine's battery, as finely as the system tells; without a battery, it is full and on mains power."""
    return linux_battery(POWER_SUPPLY) or psutil_battery()


def psutil_battery() -> Battery:
    """Read this machine's battery in whole percents; a machine without one counts as full, on mains power."""
    reading = psutil.sensors_battery() if hasattr(psutil, "sensors_battery") else None
    if reading is None:
        return ON_MAINS
    return Battery(min(100.0, max(0.0, float(reading.percent))), charging=bool(reading.power_plugged))


def linux_battery(folder: Path) -> Battery | None:
    """Read the battery from Linux's power supply class; several count as one. None if there is none to be read.

    `folder` holds one folder per supply, with `energy_now`, `energy_full` and `power_now` in millionths of watt-hours
    and watts, or with `charge_now`, `charge_full` and `current_now` in millionths of ampere-hours and amperes, and
    `voltage_now`. Batteries of a mouse or another attached device (`scope`) are left out. An unknown `status` counts as
    battery power.
    """
    supplies = sorted(folder.iterdir()) if folder.is_dir() else []
    batteries = [s for s in supplies if _text(s / "type") == "Battery" and _text(s / "scope") != "Device"]
    readings = [reading for battery in batteries if (reading := _energies(battery))]
    full_wh = sum(full for _, full, _ in readings)
    if not readings or full_wh <= 0:
        return None
    powers = [power for _, _, power in readings if power is not None]
    statuses = {_text(battery / "status") for battery in batteries}
    return Battery(
        percent=min(100.0, max(0.0, 100 * sum(now for now, _, _ in readings) / full_wh)),
        charging="Discharging" not in statuses and not statuses.isdisjoint(_ON_MAINS),
        step_percent=0.1,  # gauges report finer values than they measure
        capacity_wh=full_wh,
        power_w=sum(powers) if powers else None,
    )


def _energies(battery: Path) -> tuple[float, float, float | None] | None:
    """Return energy and full energy in watt-hours, and the power in watts if it is known."""
    volts = _micro(battery / "voltage_now")
    now, full, power = (_micro(battery / name) for name in ("energy_now", "energy_full", "power_now"))
    if now is None or full is None:
        now, full, power = (
            None if value is None or volts is None else value * volts
            for value in (_micro(battery / name) for name in ("charge_now", "charge_full", "current_now"))
        )
    return None if now is None or full is None else (now, full, power and abs(power))


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:  # a driver need not offer every file
        return ""


def _micro(path: Path) -> float | None:
    """Return a value that is given in millionths; None if it is missing or not a number."""
    text = _text(path)
    return int(text) / 1e6 if text.removeprefix("-").isdecimal() else None
