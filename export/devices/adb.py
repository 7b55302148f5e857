"""The device `adb`: Android phones, which run ONNX Runtime's own performance test.

`onnxruntime_perf_test` and `libonnxruntime.so` come out of ONNX Runtime's build for Android
(`./build.sh --android --android_abi arm64-v8a --build_shared_lib --config Release ...`; from sources of August 2025 the
tool knows no option there, microsoft/onnxruntime#25849). They are pushed once to a folder on each phone whose files may
be run: `/data/local/tmp/ofa`.

Each burst is a process on the phone. It makes a session, runs it once, and then as often as it is told to; for each
such run it appends a line to a result file: the name of the model's folder, seconds, peak memory in bytes, use of the
processors in percent, and the number of the run:

    ofa_models,0.0123457,25440256,24,0
"""

from __future__ import annotations

import re
import subprocess
import tempfile
import uuid
import weakref
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from threading import Lock
from typing import Any

import torch

from export.formats.onnx import to_onnx
from ofa.core.errors import DeviceError
from ofa.devices.device import Host, HostLost, Model, Runner

TOOL = "onnxruntime_perf_test"


_WARMUP_RUNS = 4  # beside the tool's own: a process is new, and so are its caches and the phone's clocks


_ANSWER_S = 10.0


_EXPORTING = Lock()  # the exporter's state is global


_LINE = re.compile(r"[^,]*,([0-9.]+(?:e[+-]?[0-9]+)?),[0-9]+,-?[0-9]+,[0-9]+")


_STATES = {
    "unauthorized": "unlock it and allow this computer's USB debugging on its screen",
    "offline": "reconnect it, or run: adb kill-server",
    "no permissions": "let your user have USB devices by a udev rule, then run: adb kill-server",
}


_PROPERTIES = (
    "ro.product.model",
    "ro.soc.model",
    "ro.board.platform",
    "ro.build.version.release",
    "ro.product.cpu.abi",
)


class Adb:
    """Runs models on one or several phones of one kind; implements `ofa.devices.device.Device`.

    Args:
        serials: of the phones, as `adb devices` lists them; none for the only one that is connected.
        adb: the program.
        folder: on the phones, where the performance test is.
        threads: of one run.
        timeout_s: of one command.

    Raises:
        DeviceError: `adb`, a phone or the performance test is not there, phones of different kinds, or an option out
            of range.
    """

    name = "adb"

    def __init__(
        self,
        serials: Sequence[str] = (),
        adb: str = "adb",
        folder: str = "/data/local/tmp/ofa",
        threads: int = 1,
        timeout_s: float = 120.0,
    ) -> None:
        if isinstance(threads, bool) or not isinstance(threads, int) or threads < 1:
            raise DeviceError(f"adb: threads = {threads!r} is not allowed; give a whole number from 1")
        if not folder.startswith("/"):
            raise DeviceError(f"adb: folder = {folder!r} is not an absolute path; give one such as /data/local/tmp/ofa")
        if not timeout_s > 0:
            raise DeviceError(f"adb: timeout_s = {timeout_s!r} is not allowed; give seconds above 0")
        chosen = _chosen([serials] if isinstance(serials, str) else serials, adb)
        phones = [Phone(serial, adb, folder.rstrip("/"), threads, timeout_s) for serial in chosen]
        try:
            descriptions = [phone.prepare() for phone in phones]
        except HostLost as lost:
            raise DeviceError(f"adb: {lost}; reconnect it and begin again") from lost
        for phone, description in zip(phones, descriptions, strict=True):
            if description != descriptions[0]:
                raise DeviceError(
                    f"adb: {phone.serial} ({description}) is another kind of phone than {phones[0].serial} "
                    f"({descriptions[0]}); measure phones of one kind together"
                )
        self.hosts: Sequence[Host] = phones
        self.description: dict[str, Any] = {"device": self.name, **descriptions[0]}


@dataclass(frozen=True)
class Phone:
    """One phone; implements `ofa.devices.device.Host`.

    Attributes:
        serial: as `adb devices` lists it.
        adb: the program.
        folder: where the performance test is; models go to a folder in it, which is removed with this object.
        threads: of one run.
        timeout_s: of one command.
        unused: models of runners that are gone, removed from the phone when the next one is loaded.
    """

    serial: str
    adb: str
    folder: str
    threads: int
    timeout_s: float
    unused: list[str] = field(default_factory=list)

    def prepare(self) -> dict[str, Any]:
        """Makes an empty folder for models; what a table must record of the phone.

        Raises:
            DeviceError: the performance test is not there, or the phone has fewer processors than threads.
            HostLost: it does not answer.
        """
        tool = f"{self.folder}/{TOOL}"
        if self.shell(f"[ -x {quote(tool)} ] || echo missing").strip():
            raise DeviceError(
                f"adb: phone {self.serial} has no program {tool}; build ONNX Runtime for Android and, from its build's "
                f"Release folder, run: adb -s {self.serial} push {TOOL} libonnxruntime.so {self.folder}/ && "
                f"adb -s {self.serial} shell chmod 755 {tool}"
            )
        self.shell(f"rm -rf {quote(self._models)} && mkdir -p {quote(self._models)}")
        weakref.finalize(self, _clear, self.adb, self.serial, self._models)
        asked = "; ".join(f"getprop {name}" for name in _PROPERTIES)
        lines = [line.strip() for line in self.shell(f"{asked}; nproc").splitlines()] + [""] * (len(_PROPERTIES) + 1)
        model, soc, board, release, abi, processors = lines[: len(_PROPERTIES) + 1]
        if processors.isdecimal() and self.threads > int(processors):
            raise DeviceError(
                f"adb: threads = {self.threads} is not allowed; phone {self.serial} has {processors} processors"
            )
        return {
            "runtime": "onnxruntime",
            "runtime_version": self._runtime_version(),
            "phone": model,
            "processor": soc or board or model,
            "os": f"Android {release} {abi}",
            "threads": self.threads,
            "precision": "float32",
            "torch_version": str(torch.__version__),
        }

    def load(self, model: Model) -> Runner:
        """Exports a model and pushes it."""
        while self.unused:
            gone = quote(self.unused.pop())
            self.shell(f"rm -f {gone} {gone}.csv")
        remote = f"{self._models}/{uuid.uuid4().hex}.onnx"
        module = model.module()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            with _EXPORTING:
                to_onnx(module, model.input_shape, path)
            self.run("push", str(path), remote)
        runner = PhoneRunner(self, remote)
        weakref.finalize(runner, self.unused.append, remote).atexit = False
        return runner

    def shell(self, command: str) -> str:
        """What a command of the phone's shell prints; see `run`."""
        return self.run("shell", command)

    def run(self, *arguments: str) -> str:
        """What an `adb` command prints.

        Raises:
            DeviceError: it fails, or takes too long, though the phone answers.
            HostLost: the phone does not answer.
        """
        try:
            done = _adb(self.adb, "-s", self.serial, *arguments, timeout_s=self.timeout_s)
            why = None if done.returncode == 0 else _last_lines(done)
        except subprocess.TimeoutExpired:
            why = f"no end after {self.timeout_s:g} s; raise timeout_s"
        if why is None:
            return done.stdout
        if not self._answers():
            raise HostLost(f"phone {self.serial} does not answer: {why}")
        raise DeviceError(f"adb: phone {self.serial} cannot do {' '.join(arguments)!r}: {why}")

    @property
    def _models(self) -> str:
        return f"{self.folder}/ofa_models"

    def _answers(self) -> bool:
        with suppress(subprocess.TimeoutExpired):
            return _adb(self.adb, "-s", self.serial, "shell", "echo here", timeout_s=_ANSWER_S).stdout.strip() == "here"
        return False

    def _runtime_version(self) -> str:
        """The version that ONNX Runtime's library gives its symbols."""
        files = " ".join(quote(f"{self.folder}/{name}") for name in ("libonnxruntime.so", TOOL))
        found = self.shell(f"grep -aohE 'VERS_[0-9]+[.][0-9]+[.][0-9]+' {files} 2>/dev/null | head -n 1")
        return found.strip().removeprefix("VERS_") or "unknown"


@dataclass(frozen=True)
class PhoneRunner:
    """Times the runs of a model that is on a phone; implements `ofa.devices.device.Runner`.

    Options of the tool: `-I` makes an input, batch 1, from seed `-S`; `-x` and `-y` are threads within and between
    operators; `-o 99` is all optimisations; `-Z` keeps threads from spinning between runs, as in `export.session`.
    """

    phone: Phone
    remote: str

    def __call__(self, n: int) -> list[float]:
        """Milliseconds of each run.

        Raises:
            DeviceError: the tool fails, or does not give the time of each run.
            HostLost: the phone does not answer.
        """
        folder, model, result = (quote(path) for path in (self.phone.folder, self.remote, f"{self.remote}.csv"))
        wanted = _WARMUP_RUNS + n
        printed = self.phone.shell(
            f"cd {folder} && rm -f {result} && LD_LIBRARY_PATH={folder} ./{TOOL} -e cpu -m times -r {wanted} "
            f"-x {self.phone.threads} -y 1 -o 99 -Z -I -S 1 {model} {result} 1>&2 && cat {result}"
        )
        found = [float(match[1]) * 1e3 for match in map(_LINE.fullmatch, printed.split()) if match]
        if len(found) != wanted:
            raise DeviceError(
                f"adb: {TOOL} on phone {self.phone.serial} gave the times of {len(found)} runs, not of {wanted}; it "
                f"printed {printed[-500:]!r}; use the tool of a newer ONNX Runtime"
            )
        return found[_WARMUP_RUNS:]


def _chosen(serials: Sequence[str], adb: str) -> list[str]:
    """The phones that are asked for, or the only one; each ready."""
    states = dict(_devices(adb))
    if len(set(serials)) != len(serials):
        raise DeviceError(f"adb: serials = {list(serials)} has a phone twice; name each once")
    ready = [serial for serial, state in states.items() if state == "device"]
    chosen = list(serials) or ready or list(states)
    if not chosen:
        raise DeviceError("adb: no phone is connected; connect one, switch its USB debugging on and run: adb devices")
    if not serials and len(chosen) > 1:
        raise DeviceError(f"adb: {len(chosen)} phones are connected; name those to use in serials: {', '.join(chosen)}")
    for serial in chosen:
        state = states.get(serial)
        if state is None:
            raise DeviceError(f"adb: phone {serial!r} is not connected; connected: {', '.join(states) or 'none'}")
        if state != "device":
            step = next((step for known, step in _STATES.items() if state.startswith(known)), "restart it")
            raise DeviceError(f"adb: phone {serial} is in state {state!r}; {step}")
    return chosen


def _devices(adb: str) -> Iterable[tuple[str, str]]:
    """Serial and state of each phone that `adb devices` lists."""
    try:
        done = _adb(adb, "devices", timeout_s=30.0)
    except subprocess.TimeoutExpired as error:
        raise DeviceError("adb: `adb devices` does not end; run: adb kill-server") from error
    if done.returncode:
        raise DeviceError(f"adb: `adb devices` fails: {_last_lines(done)}; run: adb kill-server")
    lines = done.stdout.partition("List of devices attached")[2].splitlines()
    return ((serial, state.strip()) for serial, tab, state in (line.partition("\t") for line in lines) if tab)


def _clear(adb: str, serial: str, folder: str) -> None:
    """Removes a folder from a phone, if it answers."""
    with suppress(DeviceError, subprocess.TimeoutExpired):
        _adb(adb, "-s", serial, "shell", f"rm -rf {quote(folder)}", timeout_s=_ANSWER_S)


def _adb(adb: str, *arguments: str, timeout_s: float) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            [adb, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout_s,
            check=False,
        )
    except OSError as error:
        raise DeviceError(
            f"adb: the program {adb!r} cannot be run ({error.strerror}); install Android's platform-tools, or give its "
            "path as option adb"
        ) from error


def _last_lines(done: subprocess.CompletedProcess[str]) -> str:
    """The end of what a command printed, on one line."""
    lines = (done.stderr.strip() or done.stdout.strip()).splitlines()[-3:]
    return " / ".join(lines) or f"exit code {done.returncode}"
