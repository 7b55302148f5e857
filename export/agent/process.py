"""The process in which an agent runs models, as the agent sees it, and the messages between the two. Free of torch.

A model that crashes the runtime takes only this process with it; the next request starts another, without models.
"""

import json
import os
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import asdict
from typing import IO, Any

from export.agent.config import Limits
from export.http_server import RefusedError

_GRACE_S = 2.0
"""Time that the process has, beyond `max_seconds`, to end a request by itself."""


class WorkerProcess:
    """The worker of an agent, `export.agent.worker`: one request at a time, started when there is none."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._asking, self._closed = threading.Lock(), False
        self._process: Any = None  # subprocess.Popen, with both pipes

    def ask(self, request: dict[str, Any], onnx: bytes = b"") -> dict[str, Any]:
        """Return the worker's answer; RefusedError if it refuses, takes too long, ends, or stays busy."""
        seconds = self._limits.max_seconds + _GRACE_S
        if not self._asking.acquire(timeout=seconds):
            raise RefusedError(503, f"the agent was busy for {seconds:g} s; try again later")
        try:
            answer = self._exchange(json.dumps(request).encode(), onnx, seconds)
        finally:
            self._asking.release()
        if "error" in answer:
            raise RefusedError(answer["status"], answer["error"])
        return answer

    def close(self) -> None:
        """End the process for good."""
        self._closed = True
        if self._process is not None:
            self._process.kill()
        with self._asking:
            self._end()

    def _exchange(self, request: bytes, onnx: bytes, seconds: float) -> dict[str, Any]:
        """Send a request and wait for the answer; after `seconds`, kill the process."""
        process, deadline = self._started(), time.monotonic() + seconds
        timer = threading.Timer(seconds, process.kill)
        timer.start()
        try:
            send(process.stdin, request, onnx)
            answer: dict[str, Any] = json.loads(receive(process.stdout))
        except (OSError, EOFError) as error:
            self._end()
            if time.monotonic() >= deadline:
                raise too_long(self._limits.max_seconds) from error
            raise RefusedError(503, "ONNX Runtime ended and all models are dropped; send them again") from error
        finally:
            timer.cancel()
        return answer

    def _started(self) -> Any:
        if self._closed:
            raise RefusedError(503, "the agent is being closed; use another")
        if self._process is None or self._process.poll() is not None:
            self._end()
            # The worker imports what this process imports; -P keeps an export.py in the working directory out.
            command = [sys.executable, "-P", "-m", "export.agent.worker", json.dumps(asdict(self._limits))]
            environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment)
            try:
                receive(self._process.stdout)
            except EOFError as error:
                raise RefusedError(503, "ONNX Runtime does not start; see what the agent prints") from error
        return self._process

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            with suppress(OSError), self._process:  # closes its pipes and waits for it
                self._process = None


def too_long(max_seconds: float) -> RefusedError:
    """Return the refusal of a request that took longer than `max_seconds`."""
    return RefusedError(
        422, f"that took more than {max_seconds:g} s; ask for fewer runs or raise the agent's --max-seconds"
    )


def send(pipe: IO[bytes], *parts: bytes) -> None:
    """Write parts to a pipe, each after its size in 8 bytes."""
    for part in parts:
        pipe.write(len(part).to_bytes(8, "big"))
        pipe.write(part)
    pipe.flush()


def receive(pipe: IO[bytes]) -> bytes:
    """Return the next part from a pipe; EOFError if the other side ended."""
    head = pipe.read(8)
    size = int.from_bytes(head, "big")
    part = pipe.read(size)
    if len(head) < 8 or len(part) < size:
        raise EOFError
    return part
