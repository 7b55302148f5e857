"""The devices `adb`, `adb-mnn`, `adb-ncnn`: Android phones, which run a runtime's own program; see docs/agent.md."""

import os
import subprocess
from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

from export.devices.converted_cpu import converted_file
from export.devices.local import ToFile, check_batch, onnx_file, shared_description
from export.devices.phone import Phone, last_lines, run_adb
from export.devices.phone_tools import MnnTool, NcnnTool, OnnxRuntimeTool, Tool
from export.errors import MAX_SECONDS, check_choice, check_number
from export.formats import mnn_format, ncnn_format
from export.formats.precision import PRECISIONS
from ofa.core.errors import DeviceError
from ofa.devices.device import Host, HostLost
from ofa.devices.format import create_format

_FOLDER = "/data/local/tmp/ofa"
_STATES = {
    "unauthorized": "unlock it and allow this computer's USB debugging on its screen",
    "offline": "reconnect it, or run: adb kill-server",
    "no permissions": "let your user have USB devices by a udev rule, then run: adb kill-server",
}


class _AdbPhones:
    """One or several phones of one kind; implements `ofa.devices.device.Device`."""

    name: ClassVar[str]
    precisions: ClassVar[tuple[str, ...]]
    tool: ClassVar[Tool]

    def __init__(
        self,
        to_file: ToFile,
        *,
        serials: Sequence[str] | str,
        adb: str,
        folder: str,
        threads: int,
        timeout_s: float,
        **described: Any,
    ) -> None:
        check_number(f"{self.name}: threads", threads, 1, 1024, whole=True)
        check_number(f"{self.name}: timeout_s", timeout_s, 0.001, MAX_SECONDS)
        serials = [serials] if isinstance(serials, str) else serials
        if not isinstance(serials, list | tuple) or not all(isinstance(serial, str) for serial in serials):
            raise DeviceError(f"adb: serials = {serials!r:.60} is not allowed; give a list of strings")
        if not isinstance(adb, str) or not adb:
            raise DeviceError(f"adb: adb = {adb!r:.60} is not allowed; give the name or the path of the program")
        adb = os.path.expanduser(adb)
        if not isinstance(folder, str) or not folder.startswith("/"):
            raise DeviceError(f"adb: folder = {folder!r} is not an absolute path; give one such as /data/local/tmp/ofa")
        options: dict[str, Any] = {"threads": threads, "timeout_s": timeout_s, "tool": self.tool, "to_file": to_file}
        phones = [
            Phone(serial=serial, adb=adb, folder=folder.rstrip("/"), **options) for serial in _choose(serials, adb)
        ]
        try:
            descriptions = {phone.serial: phone.prepare() for phone in phones}
            self.description = shared_description(self.name, descriptions, **described)
        except HostLost as lost:
            raise DeviceError(f"adb: {lost}; reconnect it and start again") from lost
        self.hosts: Sequence[Host] = phones


class Adb(_AdbPhones):
    """Run models on phones with ONNX Runtime; implements `ofa.devices.device.Device`.

    Args:
        serials: of the phones, as `adb devices` lists them; none for the only one that is connected.
        adb: the program.
        folder: of the program on the phones.
        threads: of one run.
        timeout_s: seconds that one command may take.
        precision: of the files, one that ONNX Runtime runs on a CPU; see `export.formats.precision`.
        batch: number of images in one run, from 1 to 4096.

    Raises:
        DeviceError: `adb`, a phone or the program is missing, the phones are of different kinds, or an
            option is out of range.
    """

    name, precisions, tool = "adb", PRECISIONS, OnnxRuntimeTool()

    def __init__(
        self,
        *,
        serials: Sequence[str] | str = (),
        adb: str = "adb",
        folder: str = _FOLDER,
        threads: int = 1,
        timeout_s: float = 120.0,
        precision: str = "float32",
        batch: int = 1,
    ) -> None:
        check_choice(f"{self.name}: precision", precision, self.precisions)
        check_batch(self.name, batch)
        options: dict[str, Any] = {"serials": serials, "adb": adb, "folder": folder, "timeout_s": timeout_s}
        to_file = partial(onnx_file, precision=precision, batch=batch)
        super().__init__(to_file, threads=threads, precision=precision, batch=batch, **options)


class _AdbConverted(_AdbPhones):
    """Base of the devices that run other files than ONNX on phones, one image at a time."""

    formats: ClassVar[tuple[str, ...]]

    def __init__(
        self,
        *,
        serials: Sequence[str] | str = (),
        adb: str = "adb",
        folder: str = _FOLDER,
        threads: int = 1,
        timeout_s: float = 120.0,
        precision: str = "float32",
    ) -> None:
        check_choice(f"{self.name}: precision", precision, self.precisions)
        options: dict[str, Any] = {"serials": serials, "adb": adb, "folder": folder, "timeout_s": timeout_s}
        to_file = partial(converted_file, model_format=create_format(self.formats[0]), precision=precision)
        super().__init__(to_file, threads=threads, precision=precision, batch=1, **options)


class AdbMnn(_AdbConverted):
    """Run models on phones with MNN; implements `ofa.devices.device.Device`. For the arguments see `Adb`."""

    name, precisions, formats, tool = "adb-mnn", mnn_format.PRECISIONS, ("mnn",), MnnTool()


class AdbNcnn(_AdbConverted):
    """Run models on phones with ncnn; implements `ofa.devices.device.Device`. For the arguments see `Adb`."""

    name, precisions, formats, tool = "adb-ncnn", ncnn_format.PRECISIONS, ("ncnn",), NcnnTool()


def _choose(serials: Sequence[str], adb: str) -> list[str]:
    """Return the serials that were asked for, or that of the only phone; each is ready."""
    states = _phone_states(adb)
    if len(set(serials)) != len(serials):
        raise DeviceError(f"adb: serials = {list(serials)} has a phone twice; name each once")
    attached = list(serials) or [serial for serial, state in states.items() if state == "device"] or list(states)
    if not attached:
        raise DeviceError("adb: no phone is connected; connect one, switch its USB debugging on and run: adb devices")
    if not serials and len(attached) > 1:
        raise DeviceError(
            f"adb: {len(attached)} phones are connected; name those to use in serials: {', '.join(attached)}"
        )
    for serial in attached:
        state = states.get(serial)
        if state is None:
            raise DeviceError(f"adb: phone {serial!r} is not connected; connected: {', '.join(states) or 'none'}")
        if state != "device":
            step = next((step for known, step in _STATES.items() if state.startswith(known)), "restart it")
            raise DeviceError(f"adb: phone {serial} is in state {state!r}; {step}")
    return attached


def _phone_states(adb: str) -> dict[str, str]:
    """Return the state of each phone that `adb devices` lists, by serial."""
    try:
        done = run_adb(adb, "devices", timeout_s=30.0)
    except subprocess.TimeoutExpired as error:
        raise DeviceError("adb: `adb devices` does not end; run: adb kill-server") from error
    if done.returncode:
        raise DeviceError(f"adb: `adb devices` fails: {last_lines(done)}; run: adb kill-server")
    lines = done.stdout.partition("List of devices attached")[2].splitlines()
    return {serial: state.strip() for serial, tab, state in (line.partition("\t") for line in lines) if tab}
