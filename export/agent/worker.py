"""The process in which an agent runs models, and how the agent talks to it; see `export.agent`. Free of torch.

A run that takes too long is ended between two operators, where ONNX Runtime looks; whatever does not end there is
killed with the process. A model that crashes the runtime takes only this process with it. Another is then started; it
has no models, and clients send them again.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import IO, Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from export.agent.harmless import HarmfulModelError, check_harmless
from export.session import session

_GRACE_S = 2.0
"""What the process has, beyond `max_seconds`, to end by itself."""


@dataclass(frozen=True)
class Limits:
    """What the process may take.

    Attributes:
        threads: of one run.
        max_mib: of the models that are held together with their inputs, so also of each.
        max_models: that are held; beyond either, those that were run longest ago are forgotten.
        max_seconds: that loading a model or a request for runs may take.
    """

    threads: int
    max_mib: int
    max_models: int
    max_seconds: float


class Refusal(Exception):  # noqa: N818  # it says what happened
    """A request that is not done.

    Attributes:
        status: of the HTTP answer.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Worker:
    """The process that has the models, one request at a time; started when there is none."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._asking, self._closed = threading.Lock(), False
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, request: dict[str, Any], onnx: bytes = b"") -> dict[str, Any]:
        """What the worker answers.

        Raises:
            Refusal: it refuses, takes too long, ends, or others kept it busy all the time.
        """
        seconds = self._limits.max_seconds + _GRACE_S
        if not self._asking.acquire(timeout=seconds):
            raise Refusal(503, f"the agent was busy for {seconds:g} s; try again later")
        try:
            process, late = self._started(), threading.Event()

            def kill() -> None:
                late.set()
                process.kill()

            timer = threading.Timer(seconds, kill)
            timer.start()
            try:
                answer = _exchange(process, json.dumps(request).encode(), onnx)
            except (OSError, EOFError) as error:
                self._end()
                if late.is_set():
                    raise _too_long(self._limits.max_seconds) from error
                raise Refusal(503, "ONNX Runtime ended, all models are forgotten; send them again") from error
            finally:
                timer.cancel()
        finally:
            self._asking.release()
        if "error" in answer:
            raise Refusal(answer["status"], answer["error"])
        return answer

    def close(self) -> None:
        """Ends the process for good."""
        self._closed = True
        if self._process is not None:
            self._process.kill()
        with self._asking:
            self._end()

    def _started(self) -> subprocess.Popen[bytes]:
        if self._closed:
            raise Refusal(503, "the agent is being closed; use another")
        if self._process is not None and self._process.poll() is None:
            return self._process
        self._end()
        command = [sys.executable, "-m", __name__, json.dumps(asdict(self._limits))]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            _receive(_pipe(self._process.stdout))
        except EOFError as error:
            raise Refusal(503, "ONNX Runtime does not start; see what the agent prints") from error
        return self._process

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                with suppress(OSError):
                    _pipe(pipe).close()
        self._process = None


def work(limits: Limits) -> None:
    """Does what comes in by standard input until that ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the agent decides when it ends
    ort.set_default_logger_severity(4)
    requests, answers = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever the runtime prints is not an answer
    models = _Models(limits)
    with suppress(EOFError, BrokenPipeError):
        _send(answers, b"{}")
        while True:
            request, onnx = json.loads(_receive(requests)), _receive(requests)
            try:
                answer = models.do(request, onnx)
            except Refusal as error:
                answer = {"status": error.status, "error": str(error)}
            _send(answers, json.dumps(answer).encode())


@dataclass(frozen=True)
class _Held:
    session: ort.InferenceSession
    feed: dict[str, NDArray[np.float32]]
    n_bytes: int


class _Models:
    """The models of a worker, those that were run longest ago first."""

    def __init__(self, limits: Limits) -> None:
        self._limits, self._max_bytes = limits, limits.max_mib * 2**20
        self._held: OrderedDict[str, _Held] = OrderedDict()

    def do(self, request: dict[str, Any], onnx: bytes) -> dict[str, Any]:
        """The answer to a request.

        Raises:
            Refusal: the model is refused, unknown, or does not run.
        """
        match request["do"]:
            case "load":
                return {"model": self._load(onnx)}
            case "run":
                return {"milliseconds": self._run(request["model"], request["n"])}
        forgotten = len(self._held)
        self._held.clear()
        return {"forgotten": forgotten}

    def _load(self, onnx: bytes) -> str:
        model = hashlib.sha256(onnx).hexdigest()
        if model not in self._held:
            try:
                check_harmless(onnx)
            except HarmfulModelError as error:
                raise Refusal(422, str(error)) from error
            self._make_room(len(onnx))
            try:
                loaded = session(onnx, self._limits.threads)
                shapes = {value.name: _shape(value) for value in loaded.get_inputs()}
            except Refusal:
                raise
            except Exception as error:  # ONNX Runtime's errors have no base of their own
                raise Refusal(422, f"ONNX Runtime cannot load the model ({_said(error)}); check it") from error
            n_bytes = len(onnx) + 4 * sum(math.prod(shape) for shape in shapes.values())
            if n_bytes > self._max_bytes:
                raise Refusal(
                    422,
                    f"the model and its inputs take {n_bytes} bytes, more than {self._max_bytes}; send a smaller one "
                    "or raise the agent's --max-mib",
                )
            self._make_room(n_bytes)
            rng = np.random.default_rng(0)
            feed = {name: rng.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}
            self._held[model] = _Held(loaded, feed, n_bytes)
        self._held.move_to_end(model)
        return model

    def _make_room(self, n_bytes: int) -> None:
        filled = n_bytes + sum(held.n_bytes for held in self._held.values())
        while self._held and (filled > self._max_bytes or len(self._held) >= self._limits.max_models):
            filled -= self._held.popitem(last=False)[1].n_bytes

    def _run(self, model: str, n: int) -> list[float]:
        if model not in self._held:
            raise Refusal(404, f"model {model[:64]!r} is not held; send it by POST /models")
        self._held.move_to_end(model)
        options = ort.RunOptions()
        timer = threading.Timer(self._limits.max_seconds, setattr, (options, "terminate", True))
        timer.start()
        try:
            return _times(self._held[model], n, options)
        except Exception as error:  # as in _load
            if options.terminate:
                raise _too_long(self._limits.max_seconds) from error
            raise Refusal(422, f"ONNX Runtime cannot run the model ({_said(error)}); check it") from error
        finally:
            timer.cancel()


def _times(held: _Held, n: int, options: ort.RunOptions) -> list[float]:
    """Milliseconds of each run after one that is not timed."""
    run, feed, clock, times = held.session.run, held.feed, time.perf_counter_ns, []
    run(None, feed, options)
    for _ in range(n):
        start = clock()
        run(None, feed, options)
        times.append((clock() - start) / 1e6)
        if options.terminate:
            raise TimeoutError
    return times


def _shape(value: Any) -> list[int]:
    """Of an input, its batch being 1."""
    if value.type != "tensor(float)":
        raise Refusal(422, f"input {value.name[:99]!r} is a {value.type}, not a tensor(float); export it in float32")
    shape = [1 if i == 0 and not isinstance(size, int) else size for i, size in enumerate(value.shape)]
    if not all(isinstance(size, int) and size >= 1 for size in shape):
        raise Refusal(
            422,
            f"input {value.name[:99]!r} has shape {str(value.shape)[:99]}; only the first size may be open; export it "
            "with others that are 1 or more",
        )
    return shape


def _too_long(max_seconds: float) -> Refusal:
    return Refusal(422, f"that took more than {max_seconds:g} s; ask for fewer runs or raise the agent's --max-seconds")


def _said(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None  # as it was asked for
    return pipe


def _exchange(process: subprocess.Popen[bytes], *parts: bytes) -> dict[str, Any]:
    _send(_pipe(process.stdin), *parts)
    answer: dict[str, Any] = json.loads(_receive(_pipe(process.stdout)))
    return answer


def _send(pipe: IO[bytes], *parts: bytes) -> None:
    for part in parts:
        pipe.write(len(part).to_bytes(8, "big"))
        pipe.write(part)
    pipe.flush()


def _receive(pipe: IO[bytes]) -> bytes:
    """What was sent in one part.

    Raises:
        EOFError: the other side ended.
    """
    head = pipe.read(8)
    size = int.from_bytes(head, "big")
    part = pipe.read(size)
    if len(head) < 8 or len(part) < size:
        raise EOFError
    return part


if __name__ == "__main__":
    work(Limits(**json.loads(sys.argv[1])))
