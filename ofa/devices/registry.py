"""Devices: something that runs models. `ofa.devices.measure` says how long that takes.

Devices reach the engine through the entry-point group `ofa.devices`; each is a function
`device(**options) -> Device`.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

from ofa.core.errors import DeviceError
from ofa.devices.device import Device


def create_device(name: str, **options: Any) -> Device:
    """Makes a device by its registered name.

    Raises:
        DeviceError: no such device, or it cannot run here.
    """
    found = entry_points(group="ofa.devices", name=name)
    if not found:
        raise DeviceError(f"unknown device {name!r}; registered: {', '.join(list_devices())}")
    factory: Callable[..., Device] = next(iter(found)).load()
    try:
        return factory(**options)
    except TypeError as error:
        raise DeviceError(f"device {name!r}: {error}") from error


def list_devices() -> list[str]:
    """The registered devices, sorted."""
    return sorted(entry_points(group="ofa.devices").names)


def describe_devices() -> dict[str, str]:
    """What each registered device does, by name: the first words of its documentation."""
    points = sorted(entry_points(group="ofa.devices"))
    return {point.name: (point.load().__doc__ or "").strip().partition("\n")[0].partition(";")[0] for point in points}
