"""The worker of an agent: loads and runs models, and reads requests from standard input. Free of torch.

A run that takes too long is stopped between two operators, where ONNX Runtime checks; an operator that does not end is
killed with the process, by `export.agent.process`.
"""

import hashlib
import json
import math
import os
import signal
import sys
import threading
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from export.agent.config import Limits
from export.agent.harmless import check_harmless
from export.agent.process import receive, send, too_long
from export.errors import one_line
from export.http_server import RefusedError
from export.machine import time_runs
from export.session import session
from ofa.core.errors import DeviceError


def work(limits: Limits) -> None:
    """Answer requests from standard input until it ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the agent decides when the worker ends
    ort.set_default_logger_severity(4)
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever the runtime prints is not an answer
    models = Models(limits)
    with suppress(EOFError, BrokenPipeError):
        send(answers, b"{}")
        while True:
            request, onnx = json.loads(receive(requests)), receive(requests)
            try:
                answer = models.answer(request, onnx)
            except DeviceError as error:
                answer = {"status": getattr(error, "status", 422), "error": str(error)}
            send(answers, json.dumps(answer).encode())


@dataclass(frozen=True)
class _Loaded:
    session: ort.InferenceSession
    feed: dict[str, NDArray[np.float32]]
    n_bytes: int


class Models:
    """The models of a worker within its limits; those that were run longest ago are dropped first."""

    def __init__(self, limits: Limits) -> None:
        self._limits, self._max_bytes = limits, limits.max_mib * 2**20
        self._loaded: OrderedDict[str, _Loaded] = OrderedDict()

    def answer(self, request: dict[str, Any], onnx: bytes) -> dict[str, Any]:
        """Return the answer to a request; DeviceError if it is refused, takes too long, or the model does not run."""
        match request["do"]:
            case "load":
                return {"model": self._load(onnx)}
            case "run":
                return {"milliseconds": self._run(request["model"], request["n"])}
        forgotten = len(self._loaded)
        self._loaded.clear()
        return {"forgotten": forgotten}

    def _load(self, onnx: bytes) -> str:
        name = hashlib.sha256(onnx).hexdigest()
        if name not in self._loaded:
            check_harmless(onnx)
            self._make_room(len(onnx))
            loaded = session(onnx, self._limits.threads)
            shapes = {value.name: _shape(value) for value in loaded.get_inputs()}
            n_bytes = len(onnx) + 4 * sum(math.prod(shape) for shape in shapes.values())
            if n_bytes > self._max_bytes:
                excess = f"{n_bytes} bytes, more than {self._max_bytes}"
                raise DeviceError(f"the model and its inputs take {excess}; raise the agent's --max-mib")
            self._make_room(n_bytes)
            rng = np.random.default_rng(0)
            feed = {key: rng.standard_normal(shape, dtype=np.float32) for key, shape in shapes.items()}
            self._loaded[name] = _Loaded(loaded, feed, n_bytes)
        self._loaded.move_to_end(name)
        return name

    def _make_room(self, n_bytes: int) -> None:
        total = n_bytes + sum(loaded.n_bytes for loaded in self._loaded.values())
        while self._loaded and (total > self._max_bytes or len(self._loaded) >= self._limits.max_models):
            total -= self._loaded.popitem(last=False)[1].n_bytes

    def _run(self, name: str, n: int) -> list[float]:
        if name not in self._loaded:
            raise RefusedError(404, f"model {name[:64]!r} is not loaded; send it by POST /models")
        self._loaded.move_to_end(name)
        model, options = self._loaded[name], ort.RunOptions()
        timer = threading.Timer(self._limits.max_seconds, setattr, (options, "terminate", True))
        timer.start()

        def run() -> None:
            model.session.run(None, model.feed, options)
            if options.terminate:
                raise TimeoutError  # between two runs

        try:
            with one_line(DeviceError, "ONNX Runtime cannot run the model", "check it"):
                return time_runs(run, n)
        except (DeviceError, TimeoutError) as error:
            if options.terminate:
                raise too_long(self._limits.max_seconds) from error
            raise
        finally:
            timer.cancel()


def _shape(value: Any) -> list[int]:
    """Return the shape of an input at batch 1."""
    if value.type != "tensor(float)":
        raise DeviceError(f"input {value.name[:99]!r} is a {value.type}, not a tensor(float); export it in float32")
    shape = [1 if i == 0 and not isinstance(size, int) else size for i, size in enumerate(value.shape)]
    if not all(isinstance(size, int) and size >= 1 for size in shape):
        shape_text = f"{value.name[:99]!r} has shape {str(value.shape)[:99]}"
        raise DeviceError(f"input {shape_text}; export it with sizes of 1 or more, of which only the first may be open")
    return shape


if __name__ == "__main__":
    work(Limits(**json.loads(sys.argv[1])))
