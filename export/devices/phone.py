"""One Android phone, reached by `adb`, that times models by a runtime's own program; see `docs/agent.md`."""

import subprocess
import tempfile
import uuid
import weakref
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote
from typing import Any

from export.devices.local import ToFile
from export.devices.phone_tools import Tool
from ofa.core.errors import DeviceError
from ofa.devices.device import HostLost, Model, Runner

_ANSWER_S = 10.0
_PROPERTIES = (
    "ro.product.model",
    "ro.soc.model",
    "ro.board.platform",
    "ro.build.version.release",
    "ro.product.cpu.abi",
)


@dataclass(frozen=True, kw_only=True)
class Phone:
    """One phone; implements `ofa.devices.device.Host`.

    Attributes:
        serial, adb, threads, timeout_s: see `export.devices.adb.Adb`.
        tool: the program that times models.
        to_file: gives the file of a model for it.
        folder: of the program. Models go to a folder of this object in it, which is removed with it; one that another
            process left there, because it was killed, is removed after a day.
        unused: models of runners that are gone; they are removed from the phone when the next one is loaded.
    """

    serial: str
    adb: str
    folder: str
    threads: int
    timeout_s: float
    tool: Tool
    to_file: ToFile
    unused: list[str] = field(default_factory=list)
    _key: str = field(default_factory=lambda: uuid.uuid4().hex, init=False)

    def prepare(self) -> dict[str, Any]:
        """Create an empty folder for models, and return what a latency table records of the phone.

        It is a DeviceError if the program is missing, or the phone has fewer processors than threads.
        """
        program = f"{self.folder}/{self.tool.program}"
        if self.shell(f"[ -x {quote(program)} ] || echo missing").strip():
            push = f"adb -s {self.serial} push {' '.join((self.tool.program, *self.tool.files))} {self.folder}/"
            raise DeviceError(
                f"adb: phone {self.serial} has no program {program}; build it for Android, see docs/agent.md, and run: "
                f"{push} && adb -s {self.serial} shell chmod 755 {program}"
            )
        old = f"find {quote(self.folder)} -maxdepth 1 -name 'ofa_models_*' -mtime +0 -exec rm -rf {{}} +"
        self.shell(f"{old} 2>/dev/null; mkdir -p {quote(self._models)}")
        weakref.finalize(self, _remove, self.adb, self.serial, self._models)
        commands = "; ".join(f"getprop {name}" for name in _PROPERTIES)
        lines = [line.strip() for line in self.shell(f"{commands}; nproc").splitlines()] + [""] * len(_PROPERTIES)
        model, soc, board, release, abi, processors = [*lines, ""][: len(_PROPERTIES) + 1]
        if processors.isdecimal() and self.threads > int(processors):
            limit = f"phone {self.serial} has {processors} processors"
            raise DeviceError(f"adb: threads = {self.threads} is not allowed; {limit}")
        return {
            "runtime": self.tool.runtime,
            "runtime_version": self._runtime_version(),
            "phone": model,
            "processor": soc or board or model,
            "os": f"Android {release} {abi}",
            "threads": self.threads,
        }

    def load(self, model: Model) -> Runner:
        """Push the file of a model to the phone."""
        while self.unused:
            path = quote(self.unused.pop())
            self.shell(f"rm -rf {path} {path}.*")
        with self.to_file(model) as file, tempfile.TemporaryDirectory() as folder:
            pushed = self.tool.pushed(file, Path(folder))
            remote = f"{self._models}/{uuid.uuid4().hex}{pushed.suffix}"
            self.run("push", str(pushed), remote)
        runner = PhoneRunner(self, remote, model.input_shape)
        weakref.finalize(runner, self.unused.append, remote).atexit = False
        return runner

    def shell(self, command: str) -> str:
        """Return what a command of the phone's shell prints; see `run`."""
        return self.run("shell", command)

    def run(self, *arguments: str) -> str:
        """Return what an `adb` command prints; HostLost if it fails and the phone does not answer, else DeviceError."""
        try:
            done = run_adb(self.adb, "-s", self.serial, *arguments, timeout_s=self.timeout_s)
            if done.returncode == 0:
                return done.stdout
            reason = last_lines(done)
        except subprocess.TimeoutExpired:
            reason = f"no end after {self.timeout_s:g} s; raise timeout_s"
        if not self._answers():
            raise HostLost(f"phone {self.serial} does not answer: {reason}")
        raise DeviceError(f"adb: phone {self.serial} cannot run {' '.join(arguments)!r}: {reason}")

    @property
    def _models(self) -> str:
        return f"{self.folder}/ofa_models_{self._key}"

    def _answers(self) -> bool:
        with suppress(subprocess.TimeoutExpired):
            done = run_adb(self.adb, "-s", self.serial, "shell", "echo here", timeout_s=_ANSWER_S)
            return done.stdout.strip() == "here"
        return False

    def _runtime_version(self) -> str:
        """Return the version in the symbols of ONNX Runtime's library; the others' do not tell theirs."""
        files = " ".join(quote(f"{self.folder}/{name}") for name in (*self.tool.files, self.tool.program))
        symbol = self.shell(f"grep -aohE 'VERS_[0-9]+[.][0-9]+[.][0-9]+' {files} 2>/dev/null | head -n 1")
        return symbol.strip().removeprefix("VERS_") or "unknown"


@dataclass(frozen=True)
class PhoneRunner:
    """Time the runs of a model on a phone; implements `ofa.devices.device.Runner`."""

    phone: Phone
    remote: str
    input_shape: tuple[int, ...]

    def __call__(self, n: int) -> list[float]:
        """Return the milliseconds of each of `n` runs, after those that warm up."""
        phone, tool = self.phone, self.phone.tool
        command = tool.command(self.remote, self.input_shape, n, phone.threads)
        printed = phone.shell(f"cd {quote(phone.folder)} && {command}")
        times_ms = tool.times_ms(printed, n)
        if len(times_ms) != n:
            counts = f"did not print the times of {n} runs, but {printed[-500:]!r}"
            raise DeviceError(f"adb: {tool.program} on phone {phone.serial} {counts}; {tool.advice}")
        return times_ms


def run_adb(adb: str, *arguments: str, timeout_s: float) -> subprocess.CompletedProcess[str]:
    """Run the program `adb`; DeviceError if it cannot be executed, TimeoutExpired after `timeout_s`."""
    options: dict[str, Any] = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True, "errors": "replace"}
    try:
        return subprocess.run([adb, *arguments], timeout=timeout_s, check=False, **options)
    except OSError as error:
        failure = f"the program {adb!r} cannot be run ({error.strerror})"
        raise DeviceError(f"adb: {failure}; install Android's platform-tools, or set adb to its path") from error


def last_lines(done: subprocess.CompletedProcess[str]) -> str:
    """Return the end of what a command printed, on one line."""
    lines = (done.stderr.strip() or done.stdout.strip()).splitlines()[-3:]
    return " / ".join(lines) or f"exit code {done.returncode}"


def _remove(adb: str, serial: str, folder: str) -> None:
    """Remove a folder from a phone, if it answers."""
    with suppress(DeviceError, subprocess.TimeoutExpired):
        run_adb(adb, "-s", serial, "shell", f"rm -rf {quote(folder)}", timeout_s=_ANSWER_S)
