"""The agent: an HTTP server that runs ONNX models and returns how long that takes; see `docs/agent.md`. Free of torch.

This process answers requests. The models are in another, its worker.
"""

import hmac
import io
import json
import socket
import ssl
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import onnxruntime as ort

from export.agent.config import MAX_RUNS, PROTOCOL, AgentConfig
from export.agent.process import RefusedError, WorkerProcess
from export.errors import local_path
from export.machine import operating_system, processor
from ofa.core.errors import DeviceError

_MAX_CONNECTIONS = 32
_JSON_BYTES = 4096
_BYTES_PER_S = 2**20
"""The slowest rate at which a body may arrive."""
_LINGER_S = 2.0


def serve(config: AgentConfig) -> ThreadingHTTPServer:
    """Return an agent that listens: `serve_forever` answers requests, `server_close` ends it and its worker.

    An address or a certificate that cannot be used, or an ONNX Runtime that does not start, is a DeviceError.
    """
    context = None
    try:
        if config.cert is not None and config.key is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(local_path(config.cert), local_path(config.key))
    except OSError as error:
        files = f"{config.cert} and {config.key}"
        raise DeviceError(f"{files} are not a certificate and its key ({error}); see docs/agent.md") from error
    try:
        server = _Server(config, context)
    except OSError as error:
        address = f"{config.host} port {config.port}"
        raise DeviceError(f"the agent cannot listen on {address} ({error}); give another") from error
    try:
        server.worker.ask({"do": "forget"})
    except RefusedError as error:
        server.server_close()
        raise DeviceError(f"the agent's worker does not start: {error}") from error
    return server


class _Server(ThreadingHTTPServer):
    """Answer each connection in its own thread, up to a number of connections at once."""

    request_queue_size = _MAX_CONNECTIONS

    def __init__(self, config: AgentConfig, context: ssl.SSLContext | None) -> None:
        self.config, self.worker = config, WorkerProcess(config.limits)
        self._free = threading.BoundedSemaphore(_MAX_CONNECTIONS)
        self.about = {
            "protocol": PROTOCOL,
            "runtime": "onnxruntime",
            "runtime_version": ort.__version__,
            "processor": processor(),
            "os": operating_system(),
            "threads": config.limits.threads,
            "precision": "float32",
        }
        super().__init__((config.host, config.port), _Handler)
        if context is not None:  # the handshake is in the connection's thread: a silent client holds up no other
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
        """Ignore the error: a client that went away is not the agent's."""

    def server_close(self) -> None:
        super().server_close()
        self.worker.close()


class _DeadlineReader(io.RawIOBase):
    """Read from a connection until a deadline, however slowly the client sends."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._deadline = 0.0

    def allow(self, seconds: float) -> None:
        """Set the deadline to `seconds` from now."""
        self._deadline = time.monotonic() + seconds

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        seconds_left = self._deadline - time.monotonic()
        if seconds_left <= 0:
            raise TimeoutError
        self._connection.settimeout(seconds_left)
        return self._connection.recv_into(buffer)


class _Handler(BaseHTTPRequestHandler):
    """One request and its answer in JSON; nothing else of a request is looked at before the token."""

    server: _Server
    server_version, sys_version = "ofa-agent", ""
    default_request_version = "HTTP/1.0"  # malformed requests are answered with a status as well

    def setup(self) -> None:
        super().setup()
        self.rfile.close()
        self._reader = _DeadlineReader(self.connection)
        self._reader.allow(self.server.config.patience_s)
        self.rfile = io.BufferedReader(self._reader)

    def do_GET(self) -> None:
        try:
            self._authorize()
            self._answer(200, self._route())
        except RefusedError as error:
            self._answer(error.status, {"error": str(error)})
        except TimeoutError:
            self._answer(408, {"error": "the body did not arrive in time; send it at once"})
        except OSError:
            raise
        except Exception as error:
            self._answer(500, {"error": f"the agent failed on this request ({type(error).__name__}); tell its author"})

    do_POST = do_DELETE = do_PUT = do_PATCH = do_GET  # noqa: N815

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002
        """Answer what the base class refuses."""
        self._answer(int(code), {"error": f"not a request that the agent knows: {message or 'see docs/agent.md'}"})

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: there are thousands of requests."""

    def _authorize(self) -> None:
        header = self.headers.get("Authorization", "").encode("utf-8", "replace")
        if not hmac.compare_digest(header, f"Bearer {self.server.config.token}".encode()):
            raise RefusedError(401, "the token is missing or wrong; send `Authorization: Bearer TOKEN`")

    def _route(self) -> dict[str, Any]:
        worker, limits = self.server.worker, self.server.config.limits
        match self.command, self.path:
            case "GET", "/about":
                return self.server.about
            case "POST", "/models":
                return worker.ask({"do": "load"}, self._body(limits.max_mib * 2**20))
            case "POST", "/runs":
                return worker.ask({"do": "run"} | _parse_runs(self._body(_JSON_BYTES)))
            case "DELETE", "/models":
                return worker.ask({"do": "forget"})
        endpoints = "GET /about, POST /models, POST /runs and DELETE /models"
        raise RefusedError(404, f"{self.command} {self.path[:99]} is not known; there are {endpoints}")

    def _body(self, max_bytes: int) -> bytes:
        lengths = self.headers.get_all("Content-Length", [])
        if not lengths or "Transfer-Encoding" in self.headers:
            raise RefusedError(411, "the body has no length; send Content-Length, not chunks")
        if len(lengths) > 1 or not (lengths[0].isascii() and lengths[0].isdigit()):
            raise RefusedError(400, f"Content-Length {lengths[0][:99]!r} is not one number; send the number of bytes")
        if len(lengths[0]) > 18 or int(lengths[0]) > max_bytes:
            raise RefusedError(413, f"{lengths[0][:20]} bytes are more than {max_bytes}; raise the agent's --max-mib")
        length = int(lengths[0])
        self._reader.allow(self.server.config.patience_s + length / _BYTES_PER_S)
        body = self.rfile.read(length)
        if len(body) < length:
            raise RefusedError(400, f"the body ends after {len(body)} of {length} bytes; send all of it")
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
        """Let a client that is still sending finish for a while: closing at once could lose the answer on its way."""
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            self._reader.allow(_LINGER_S)
            while self.rfile.read(2**16):
                pass


def _parse_runs(body: bytes) -> dict[str, Any]:
    """Return the model and the number of runs that a body asks for."""
    try:
        runs = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RefusedError(400, 'the body is not JSON; send {"model": id, "n": int}') from error
    if not isinstance(runs, dict) or set(runs) != {"model", "n"} or type(runs["model"]) is not str:
        raise RefusedError(422, 'the body does not say what to run; send {"model": id, "n": int}')
    if type(runs["n"]) is not int or not 1 <= runs["n"] <= MAX_RUNS:
        raise RefusedError(422, f"n = {str(runs['n'])[:99]} is not allowed; give a whole number from 1 to {MAX_RUNS}")
    return runs
