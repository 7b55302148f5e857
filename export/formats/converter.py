"""Converting networks in a process of its own: converters change torch, write to the terminal, and may crash."""

import json
import os
import subprocess
import sys
import tempfile
import threading
import warnings
import weakref
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import IO, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.export import ExportedProgram

from export.errors import check_choice, one_line
from export.formats.onnx import EXPORTING, eval_mode
from ofa.core.errors import DeviceError, ExportError
from ofa.core.files import replacing

Convert = Callable[[ExportedProgram, Path, str, NDArray[np.float32]], None]
"""Writes a program, exported in eval mode for one image, to a file in a precision; see `Format.write`."""
_SECONDS = 1800
"""Longest time of one conversion."""
_SERVE = "import sys; from export.formats.converter import serve; serve(sys.argv[1])"


class Converter:
    """Converts networks by a function in another process, which the first call starts and which ends with this one.

    Args:
        runtime: whose format it is, for errors.
        function: a `Convert`, as `module:name`.
    """

    def __init__(self, runtime: str, function: str) -> None:
        self._runtime, self._function = runtime, function
        self._process: subprocess.Popen[str] | None = None
        self._end: Callable[[], object] = lambda: None
        self._lock = threading.Lock()

    def __call__(
        self,
        network: nn.Module,
        input_shape: tuple[int, ...],
        path: Path,
        precision: str,
        images: NDArray[np.float32],
    ) -> None:
        """Write a file whole or not at all; see `Format.write`.

        Raises:
            ExportError: torch cannot export the network.
            DeviceError: it cannot be converted; the message is the converter's.
        """
        with tempfile.TemporaryDirectory() as folder, replacing(path) as temporary:
            program, inputs = Path(folder) / "program.pt2", Path(folder) / "images.npy"
            with (
                one_line(ExportError, f"{path.name}: torch cannot export the network", "avoid what depends on data"),
                EXPORTING,
                warnings.catch_warnings(action="ignore"),
                eval_mode(network),
            ):
                torch.export.save(torch.export.export(network, (torch.zeros(1, *input_shape),)), program)
            np.save(inputs, images)
            job = {"program": str(program), "path": str(temporary), "precision": precision, "images": str(inputs)}
            with self._lock:
                error = self._ask(job)
            if error is not None:
                raise DeviceError(f"{path.name}: {self._runtime} cannot convert it: {error}; use another format")

    def _ask(self, job: dict[str, str]) -> str | None:
        """Return the error of a job, if any."""
        process = self._started()
        assert process.stdin is not None
        assert process.stdout is not None
        timer = threading.Timer(_SECONDS, process.kill)
        timer.start()
        try:
            process.stdin.write(json.dumps(job) + "\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        finally:
            timer.cancel()
        if not answer:
            code = process.wait()
            self._end()
            return f"the converter ended with code {code}"
        error: str | None = json.loads(answer)
        return error

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None or self._process.poll() is not None:
            self._end()
            environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
            command = [sys.executable, "-P", "-c", _SERVE, self._function]
            pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
            self._process = subprocess.Popen(command, env=environment, text=True, **pipes)
            self._end = weakref.finalize(self, _end, self._process)
        return self._process


def _end(process: subprocess.Popen[str]) -> None:
    """End a process and close its pipes."""
    process.kill()
    with process:
        pass


class ConvertedFormat:
    """Base of the formats that a `Converter` writes: files for one image, without metadata.

    A subclass loads them; it implements `ofa.devices.format.Format`.
    """

    name: ClassVar[str]
    suffix: ClassVar[str]
    precisions: ClassVar[tuple[str, ...]]
    converter: ClassVar[Converter]

    def write(
        self,
        network: nn.Module,
        input_shape: tuple[int, ...],
        path: Path,
        *,
        precision: str,
        images: NDArray[np.float32],
        metadata: Mapping[str, str],  # noqa: ARG002
    ) -> None:
        """Export a network and convert it; see `Converter` for the errors."""
        check_choice(f"{self.name}: precision", precision, self.precisions)
        self.converter(network, input_shape, path, precision, images)


def serve(function: str) -> None:
    """Do the jobs that come as lines of JSON, with a `Convert` given as `module:name`, until the input ends."""
    answers = _only_answers()
    module, _, name = function.partition(":")
    convert: Convert = getattr(import_module(module), name)
    for line in sys.stdin:
        job, error = json.loads(line), None
        try:
            program = torch.export.load(job["program"])
            convert(program, Path(job["path"]), job["precision"], np.load(job["images"]))
        except Exception as raised:  # converters' errors have no common class
            error = " ".join(str(raised).split())[:300].rstrip(".") or type(raised).__name__
        answers.write(json.dumps(error) + "\n")
        answers.flush()


def _only_answers() -> IO[str]:
    """Send to nowhere what this process writes to the terminal, and return a file that still reaches the parent."""
    answers, nowhere = os.fdopen(os.dup(1), "w"), os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
    return answers
