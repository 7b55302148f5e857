"""The device `adb`: Android phones, which run ONNX Runtime's own performance test; see `export.devices.phone`."""

import os
import subprocess
from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

from export.devices.local import check_batch, onnx_file, shared_description
from export.devices.phone import Phone, last_lines, run_adb
from export.errors import MAX_SECONDS, check_choice, check_number
from export.formats.precision import PRECISIONS
from ofa.core.errors import DeviceError
from ofa.devices.device import Host, HostLost

_STATES = {
    "unauthorized": "unlock it and allow this computer's USB debugging on its screen",
    "offline": "reconnect it, or run: adb kill-server",
    "no permissions": "let your user have USB devices by a udev rule, then run: adb kill-server",
}


class Adb:
    """Run models on one or several phones of one kind; implements `ofa.devices.device.Device`.

    Args:
        serials: of the phones, as `adb devices` lists them; none for the only one that is connected.
        adb: the program.
        folder: of the performance test on the phones.
        threads: of one run.
        timeout_s: seconds that one command may take.
        precision: of the files, one that ONNX Runtime runs on a CPU; see `export.formats.precision`.
        batch: number of images in one run, from 1 to 4096.

    Raises:
        DeviceError: `adb`, a phone or the performance test is missing, the phones are of different kinds, or an
            option is out of range.
    """

    name = "adb"
    precisions: ClassVar[tuple[str, ...]] = PRECISIONS

    def __init__(
        self,
        *,
        serials: Sequence[str] | str = (),
        adb: str = "adb",
        folder: str = "/data/local/tmp/ofa",
        threads: int = 1,
        timeout_s: float = 120.0,
        precision: str = "float32",
        batch: int = 1,
    ) -> None:
        check_number("adb: threads", threads, 1, 1024, whole=True)
        check_number("adb: timeout_s", timeout_s, 0.001, MAX_SECONDS)
        check_choice(f"{self.name}: precision", precision, self.precisions)
        check_batch(self.name, batch)
        serials = [serials] if isinstance(serials, str) else serials
        if not isinstance(serials, list | tuple) or not all(isinstance(serial, str) for serial in serials):
            raise DeviceError(f"adb: serials = {serials!r:.60} is not allowed; give a list of strings")
        if not isinstance(adb, str) or not adb:
            raise DeviceError(f"adb: adb = {adb!r:.60} is not allowed; give the name or the path of the program")
        adb = os.path.expanduser(adb)
        if not isinstance(folder, str) or not folder.startswith("/"):
            raise DeviceError(f"adb: folder = {folder!r} is not an absolute path; give one such as /data/local/tmp/ofa")
        to_file = partial(onnx_file, precision=precision, batch=batch)
        options: dict[str, Any] = {"threads": threads, "timeout_s": timeout_s, "to_file": to_file}
        phones = [
            Phone(serial=serial, adb=adb, folder=folder.rstrip("/"), **options) for serial in _choose(serials, adb)
        ]
        try:
            descriptions = {phone.serial: phone.prepare() for phone in phones}
            self.description = shared_description(self.name, descriptions, precision=precision, batch=batch)
        except HostLost as lost:
            raise DeviceError(f"adb: {lost}; reconnect it and start again") from lost
        self.hosts: Sequence[Host] = phones


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
