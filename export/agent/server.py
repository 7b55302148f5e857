"""The agent: runs ONNX models on another computer or a phone, and says how long that takes; see `docs/agent.md`.

`ofa agent` or, where PyTorch is not installed, `python -m export.agent` starts it. It needs NumPy, ONNX Runtime and the
standard library. This process answers requests; its worker, another, has the models (`export.agent.worker`).
"""

from __future__ import annotations

import argparse
import hmac
import io
import json
import os
import platform
import signal
import socket
import ssl
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import onnxruntime as ort

from export.agent.worker import Limits, Refusal, Worker
from ofa.core.errors import DeviceError

PROTOCOL = 1


MOST_RUNS = 10_000
"""Of one request."""


_TOKEN_CHARACTERS = 16


_CONNECTIONS = 32


_JSON_BYTES = 4096


_BYTES_PER_S = 2**20
"""The slowest sender of a body that is listened to."""


_LINGER_S = 2.0


@dataclass(frozen=True)
class AgentConfig:
    """How an agent is started.

    Attributes:
        token: what clients must know, see `read_token`.
        host, port: where it listens; port 0 is any free one.
        cert, key: files in PEM for TLS; both or none.
        threads, max_mib, max_models, max_seconds: see `Limits`; at most as many threads as processors.
        patience_s: that a request's head may take; a body may take as long, and a second more for each MiB.

    Raises:
        DeviceError: an option out of range.
    """

    token: str = field(repr=False)
    host: str = "127.0.0.1"
    port: int = 8765
    cert: Path | None = None
    key: Path | None = None
    threads: int = 1
    max_mib: int = 512
    max_models: int = 512
    max_seconds: float = 60.0
    patience_s: float = 10.0

    def __post_init__(self) -> None:
        available = os.cpu_count() or 1
        if self.threads not in range(1, available + 1):
            raise DeviceError(f"agent: threads = {self.threads} is not allowed; choose from 1 to {available}")
        if self.port not in range(2**16):
            raise DeviceError(f"agent: port = {self.port} is not allowed; choose from 0 to {2**16 - 1}")
        for name in ("max_mib", "max_models", "max_seconds", "patience_s"):
            if not 0 < getattr(self, name) < 1e9:
                raise DeviceError(f"agent: {name} = {getattr(self, name)} is not allowed; give more than 0, below 1e9")
        if (self.cert is None) != (self.key is None):
            raise DeviceError("agent: TLS needs both a certificate and a key; give cert and key, or neither")

    @property
    def limits(self) -> Limits:
        """Of the worker."""
        return Limits(self.threads, self.max_mib, self.max_models, self.max_seconds)


def read_token(path: Path) -> str:
    """The token in a file.

    Raises:
        DeviceError: unreadable, too short, or with characters that do not fit into a header.
    """
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise DeviceError(f"the token file {path} cannot be read ({error}); write a token into it") from error
    if len(token) < _TOKEN_CHARACTERS or not all("!" <= character <= "~" for character in token):
        raise DeviceError(
            f"the token in {path} must be {_TOKEN_CHARACTERS} or more ASCII characters without spaces; make one with "
            "`openssl rand -hex 32`"
        )
    return token


def serve(config: AgentConfig) -> ThreadingHTTPServer:
    """An agent that listens; `serve_forever` makes it answer, `server_close` ends it and its worker.

    Raises:
        DeviceError: it cannot listen there, unusable certificate files, or ONNX Runtime does not start.
    """
    try:
        context = None
        if config.cert is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(config.cert, config.key)
    except OSError as error:
        raise DeviceError(
            f"{config.cert} and {config.key} are no certificate and its key ({error}); see docs/agent.md"
        ) from error
    try:
        server = _Server(config, context)
    except OSError as error:
        raise DeviceError(
            f"the agent cannot listen on {config.host} port {config.port} ({error}); give another"
        ) from error
    try:
        server.worker.ask({"do": "forget"})
    except Refusal as error:
        server.server_close()
        raise DeviceError(f"the agent's worker does not start: {error}") from error
    return server


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs an agent until Ctrl-C or SIGTERM; the exit code, 2 for a wrong option."""
    parser = argparse.ArgumentParser("ofa agent", description="Runs ONNX models for `ofa profile`.", allow_abbrev=False)
    parser.add_argument("--token-file", type=Path, required=True, help="holds the token that clients must know")
    parser.add_argument("--host", default=AgentConfig.host, help="address to listen on; 0.0.0.0 for all")
    parser.add_argument("--port", type=int, default=AgentConfig.port, help="0 for any free one")
    parser.add_argument("--threads", type=int, default=AgentConfig.threads, help="of one run")
    parser.add_argument("--cert", type=Path, help="certificate for TLS, PEM")
    parser.add_argument("--key", type=Path, help="its key, PEM")
    parser.add_argument("--max-mib", type=int, default=AgentConfig.max_mib, help="of all models held")
    parser.add_argument("--max-models", type=int, default=AgentConfig.max_models, help="held at once")
    parser.add_argument("--max-seconds", type=float, default=AgentConfig.max_seconds, help="of one request")
    options = vars(parser.parse_args(arguments))
    try:
        server = serve(AgentConfig(read_token(options.pop("token_file")), **options))
    except DeviceError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    scheme = "http" if options["cert"] is None else "https"
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # its worker ends with it, whatever it computes
    print(f"the agent listens on {scheme}://{options['host']}:{server.server_address[1]}", flush=True)
    with server, suppress(KeyboardInterrupt):
        server.serve_forever()
    return 0


def processor() -> str:
    """The processor's model name; where the system does not tell, its kind and the numbers of its parts."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    pairs = [(line.partition(":")[0].strip(), line.partition(":")[2].strip()) for line in lines]
    names = [value for name, value in pairs if name in ("model name", "Model", "Hardware") and value]
    parts = sorted({value for name, value in pairs if name == "CPU part"})
    return next(iter(names), "") or platform.processor() or " ".join([platform.machine(), *parts])


class _Server(ThreadingHTTPServer):
    """Answers each connection in a thread of its own, and so many at once."""

    request_queue_size = _CONNECTIONS

    def __init__(self, config: AgentConfig, context: ssl.SSLContext | None) -> None:
        self.config, self.worker = config, Worker(config.limits)
        self._free = threading.BoundedSemaphore(_CONNECTIONS)
        self.about = {
            "protocol": PROTOCOL,
            "runtime": "onnxruntime",
            "runtime_version": ort.__version__,
            "processor": processor(),
            "os": f"{platform.system()} {platform.machine()}",
            "threads": config.threads,
            "precision": "float32",
        }
        super().__init__((config.host, config.port), _Handler)
        if (
            context is not None
        ):  # hands are shaken in the connection's thread, so that a silent client holds up no other
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is no error of the agent's."""

    def server_close(self) -> None:
        super().server_close()
        self.worker.close()


class _Patient(io.RawIOBase):
    """What a connection sends until a deadline: reading ends, however slowly it sends."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.deadline = 0.0

    def wait(self, seconds: float) -> None:
        """Sets the deadline."""
        self.deadline = time.monotonic() + seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)
        return self._connection.recv_into(buffer)


class _Handler(BaseHTTPRequestHandler):
    """One request and its answer in JSON; the token is compared before anything else of it is looked at."""

    server: _Server
    server_version, sys_version = "ofa-agent", ""
    default_request_version = "HTTP/1.0"  # answers to nonsense have a status as well

    def setup(self) -> None:
        super().setup()
        self.rfile.close()
        self._sent = _Patient(self.connection)
        self._sent.wait(self.server.config.patience_s)
        self.rfile = io.BufferedReader(self._sent)

    def do_GET(self) -> None:
        try:
            self._authorize()
            self._answer(200, self._done())
        except Refusal as error:
            self._answer(error.status, {"error": str(error)})
        except TimeoutError:
            self._answer(408, {"error": "the body did not arrive in time; send it at once"})
        except OSError:
            raise
        except Exception as error:
            self._answer(500, {"error": f"the agent failed on this request ({type(error).__name__}); tell its author"})

    do_POST = do_DELETE = do_PUT = do_PATCH = do_GET  # noqa: N815

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002
        """Answers what the base class refuses."""
        self._answer(int(code), {"error": f"not a request that the agent knows: {message or 'see docs/agent.md'}"})

    def log_message(self, format: str, *args: Any) -> None:
        """Thousands of bursts are not worth a line each."""

    def _authorize(self) -> None:
        given = self.headers.get("Authorization", "").encode("utf-8", "replace")
        if not hmac.compare_digest(given, f"Bearer {self.server.config.token}".encode()):
            raise Refusal(
                401, "the token is missing or wrong; send `Authorization: Bearer TOKEN` with the agent's token"
            )

    def _done(self) -> dict[str, Any]:
        worker, config = self.server.worker, self.server.config
        match self.command, self.path:
            case "GET", "/about":
                return self.server.about
            case "POST", "/models":
                return worker.ask({"do": "load"}, self._body(config.max_mib * 2**20))
            case "POST", "/runs":
                return worker.ask({"do": "run"} | _asked_runs(self._body(_JSON_BYTES)))
            case "DELETE", "/models":
                return worker.ask({"do": "forget"})
        raise Refusal(
            404,
            f"{self.command} {self.path[:99]} is not known; there are GET /about, POST /models, POST /runs and "
            "DELETE /models",
        )

    def _body(self, most: int) -> bytes:
        lengths = self.headers.get_all("Content-Length", [])
        if not lengths or "Transfer-Encoding" in self.headers:
            raise Refusal(411, "the body has no length; send Content-Length, not chunks")
        if len(lengths) > 1 or not (lengths[0].isascii() and lengths[0].isdigit()):
            raise Refusal(400, f"Content-Length {lengths[0][:99]!r} is not one number; send the number of bytes")
        if len(lengths[0]) > 18 or int(lengths[0]) > most:
            raise Refusal(
                413, f"{lengths[0][:20]} bytes are more than {most}; send less or raise the agent's --max-mib"
            )
        length = int(lengths[0])
        self._sent.wait(self.server.config.patience_s + length / _BYTES_PER_S)
        body = self.rfile.read(length)
        if len(body) < length:
            raise Refusal(400, f"the body ends after {len(body)} of {length} bytes; send all of it")
        return body

    def _answer(self, status: int, answer: dict[str, Any]) -> None:
        content = json.dumps(answer).encode()
        self.connection.settimeout(self.server.config.patience_s)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        if status != 200:
            self._linger()

    def _linger(self) -> None:
        """Lets a client that is still sending finish for a while: closing at once could lose the answer on its way."""
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            self._sent.wait(_LINGER_S)
            while self.rfile.read(2**16):
                pass


def _asked_runs(body: bytes) -> dict[str, Any]:
    """The model and the number of runs that a body asks for."""
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refusal(400, 'the body is not JSON; send {"model": id, "n": int}') from error
    if not isinstance(asked, dict) or set(asked) != {"model", "n"} or type(asked["model"]) is not str:
        raise Refusal(422, 'the body does not say what to run; send {"model": id, "n": int}')
    if type(asked["n"]) is not int or not 1 <= asked["n"] <= MOST_RUNS:
        raise Refusal(422, f"n = {str(asked['n'])[:99]} is not allowed; give a whole number from 1 to {MOST_RUNS}")
    return asked
