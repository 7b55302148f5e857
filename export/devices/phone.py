"""One Android phone, reached by `adb`, that times models by ONNX Runtime's performance test; see `docs/agent.md`."""

import re
import subprocess
import uuid
import weakref
from contextlib import suppress
from dataclasses import dataclass, field
from shlex import quote
from typing import Any

from export.devices.local import ToFile
from ofa.core.errors import DeviceError
from ofa.devices.device import HostLost, Model, Runner

TOOL = "onnxruntime_perf_test"
_WARMUP_RUNS = 4  # beside the tool's own: a process is new, and so are its caches and the phone's clocks
_ANSWER_S = 10.0
# A line of a result file: name of the model's folder, seconds, peak memory in bytes, processor use in percent, run.
_LINE = re.compile(r"[^,]*,([0-9.]+(?:e[+-]?[0-9]+)?),[0-9]+,-?[0-9]+,[0-9]+")
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
        to_file: gives the ONNX file of a model to push.
        folder: of the performance test. Models go to a folder in it, which is removed with this object.
        unused: models of runners that are gone; they are removed from the phone when the next one is loaded.
    """

    serial: str
    adb: str
    folder: str
    threads: int
    timeout_s: float
    to_file: ToFile
    unused: list[str] = field(default_factory=list)

    def prepare(self) -> dict[str, Any]:
        """Create an empty folder for models, and return what a latency table records of the phone.

        It is a DeviceError if the performance test is missing, or the phone has fewer processors than threads.
        """
        tool = f"{self.folder}/{TOOL}"
        if self.shell(f"[ -x {quote(tool)} ] || echo missing").strip():
            push = f"adb -s {self.serial} push {TOOL} libonnxruntime.so {self.folder}/"
            raise DeviceError(
                f"adb: phone {self.serial} has no program {tool}; build it for Android, see docs/agent.md, and run: "
                f"{push} && adb -s {self.serial} shell chmod 755 {tool}"
            )
        self.shell(f"rm -rf {quote(self._models)} && mkdir -p {quote(self._models)}")
        weakref.finalize(self, _remove, self.adb, self.serial, self._models)
        commands = "; ".join(f"getprop {name}" for name in _PROPERTIES)
        lines = [line.strip() for line in self.shell(f"{commands}; nproc").splitlines()] + [""] * len(_PROPERTIES)
        model, soc, board, release, abi, processors = [*lines, ""][: len(_PROPERTIES) + 1]
        if processors.isdecimal() and self.threads > int(processors):
            limit = f"phone {self.serial} has {processors} processors"
            raise DeviceError(f"adb: threads = {self.threads} is not allowed; {limit}")
        return {
            "runtime": "onnxruntime",
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
            self.shell(f"rm -f {path} {path}.csv")
        with self.to_file(model) as file:
            remote = f"{self._models}/{uuid.uuid4().hex}{file.suffix}"
            self.run("push", str(file), remote)
        runner = PhoneRunner(self, remote)
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
        return f"{self.folder}/ofa_models"

    def _answers(self) -> bool:
        with suppress(subprocess.TimeoutExpired):
            done = run_adb(self.adb, "-s", self.serial, "shell", "echo here", timeout_s=_ANSWER_S)
            return done.stdout.strip() == "here"
        return False

    def _runtime_version(self) -> str:
        """Return the version in the symbols of ONNX Runtime's library."""
        files = " ".join(quote(f"{self.folder}/{name}") for name in ("libonnxruntime.so", TOOL))
        symbol = self.shell(f"grep -aohE 'VERS_[0-9]+[.][0-9]+[.][0-9]+' {files} 2>/dev/null | head -n 1")
        return symbol.strip().removeprefix("VERS_") or "unknown"


@dataclass(frozen=True)
class PhoneRunner:
    """Time the runs of a model on a phone; implements `ofa.devices.device.Runner`.

    Options of the tool: `-I` creates an input, of batch 1 where the file takes any, from seed `-S`; `-x` and `-y` are
    threads within and between operators; `-o 99` is all optimizations; `-Z` keeps threads from spinning
    between runs, as in `export.session`.
    """

    phone: Phone
    remote: str

    def __call__(self, n: int) -> list[float]:
        """Return the milliseconds of each of `n` runs, after those that warm up."""
        folder, model, result = (quote(path) for path in (self.phone.folder, self.remote, f"{self.remote}.csv"))
        n_runs = _WARMUP_RUNS + n
        printed = self.phone.shell(
            f"cd {folder} && rm -f {result} && LD_LIBRARY_PATH={folder} ./{TOOL} -e cpu -m times -r {n_runs} "
            f"-x {self.phone.threads} -y 1 -o 99 -Z -I -S 1 {model} {result} 1>&2 && cat {result}"
        )
        times_ms = [float(match[1]) * 1e3 for match in map(_LINE.fullmatch, printed.split()) if match]
        if len(times_ms) != n_runs:
            counts = f"printed the times of {len(times_ms)} runs, not of {n_runs}, in {printed[-500:]!r}"
            raise DeviceError(f"adb: {TOOL} on phone {self.phone.serial} {counts}; use a newer ONNX Runtime")
        return times_ms[_WARMUP_RUNS:]


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
