"""Registry of devices: entry points of the group `ofa.devices`, each a callable `device(**options) -> Device`."""

from collections.abc import Callable
from typing import Any

from ofa.core.errors import DeviceError
from ofa.core.plugins import call_plugin, load_plugin, plugin_names
from ofa.devices.device import Device

_GROUP = "ofa.devices"


def create_device(name: str, **options: Any) -> Device:
    """Create a device by its registered name; the options are its keyword arguments, such as `threads`.

    Raises:
        DeviceError: unknown name or option, missing option or wrong type, or the device cannot run on this machine.
    """
    factory: Callable[..., Device] = load_plugin(_GROUP, name, "device", DeviceError)
    return call_plugin(factory, options, f"device {name!r}", DeviceError)[0]


def list_devices(pattern: str = "*") -> list[str]:
    """Return the registered names that match a shell pattern such as `ort-*`, sorted."""
    return plugin_names(_GROUP, pattern)


def device_precisions(name: str) -> tuple[str, ...]:
    """Return the precisions that a device takes as its option `precision`; only float32 for one that does not say.

    Raises:
        DeviceError: unknown name.
    """
    factory = load_plugin(_GROUP, name, "device", DeviceError)
    return tuple(getattr(factory, "precisions", ("float32",)))


def device_formats(name: str) -> tuple[str, ...]:
    """Return the model formats whose files a device runs; those of ONNX, `onnx` and `web`, for one that does not say.

    Raises:
        DeviceError: unknown name.
    """
    factory = load_plugin(_GROUP, name, "device", DeviceError)
    return tuple(getattr(factory, "formats", ("onnx", "web")))


def describe_devices() -> dict[str, str]:
    """Return what each registered device does, by name: the first clause of its docstring."""
    docstrings = {name: load_plugin(_GROUP, name, "device", DeviceError).__doc__ or "" for name in list_devices()}
    return {name: text.strip().partition("\n")[0].partition(";")[0] for name, text in docstrings.items()}
