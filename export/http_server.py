"""A small HTTP server for untrusted clients: bounded connections, bodies and waiting. Free of torch."""

import hmac
import io
import json
import socket
import ssl
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from export.errors import local_path
from ofa.core.errors import DeviceError
from ofa.core.files import parse_json

JSON_TYPE = "application/json"
_BYTES_PER_S = 2**20
"""The slowest rate at which a body may arrive."""
_SENT_BYTES_PER_S = 2**16
"""The slowest rate at which an answer may be taken."""
_LINGER_S = 2.0


class RefusedError(DeviceError):
    """A request that is refused, with the status of the HTTP answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def tls_context(cert: Path | None, key: Path | None, advice: str) -> ssl.SSLContext | None:
    """Return what serves TLS with a certificate and its key, None without; DeviceError if they cannot be used."""
    if cert is None or key is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(local_path(cert), local_path(key))
    except OSError as error:
        raise DeviceError(f"{cert} and {key} are not a certificate and its key ({error}); {advice}") from error
    return context


class HttpServer(ThreadingHTTPServer):
    """Answer each connection in its own thread, up to a number of connections at once.

    Attributes:
        patience_s: seconds that a request's head may take. A body may take as long, and a second more for each MiB.
        max_connections: those beyond are closed.
    """

    max_connections = 32

    def __init__(
        self,
        address: tuple[str, int],
        handler: "type[HttpHandler]",
        context: ssl.SSLContext | None,
        *,
        patience_s: float = 10.0,
    ) -> None:
        self.patience_s, self.request_queue_size = patience_s, self.max_connections
        self._free = threading.BoundedSemaphore(self.max_connections)
        super().__init__(address, handler)
        if context is not None:  # the handshake is in the connection's thread: a silent client holds up no other
            self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer a connection in a thread, or close it if there are too many."""
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Answer a connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore the error: a client that went away is not the server's."""


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


class HttpHandler(BaseHTTPRequestHandler):
    """Requests and their answers; a subclass answers each in `respond`.

    Attributes:
        help: where requests are described, for error messages.
    """

    server: HttpServer
    server_version, sys_version = "ofa", ""
    disable_nagle_algorithm = True  # or an answer waits 40 ms for the client to acknowledge its head
    default_request_version = "HTTP/1.0"  # malformed requests are answered with a status as well
    help = "the documentation"

    def respond(self) -> None:
        """Answer the request by `answer`, or raise RefusedError."""
        raise NotImplementedError

    def setup(self) -> None:
        """Read the connection until a deadline."""
        super().setup()
        self.rfile.close()
        self._reader = _DeadlineReader(self.connection)
        self.rfile = io.BufferedReader(self._reader)

    def handle_one_request(self) -> None:
        """Answer one request; a connection that is kept open has as long for each."""
        self._reader.allow(self.server.patience_s)
        super().handle_one_request()

    def do_GET(self) -> None:
        """Answer a request of any method."""
        try:
            self.respond()
        except RefusedError as error:
            self.refuse(error.status, str(error))
        except TimeoutError:
            self.refuse(408, "the body did not arrive in time; send it at once")
        except OSError:
            raise
        except Exception as error:
            self.refuse(500, f"the server failed on this request ({type(error).__name__}); tell its author")

    do_POST = do_DELETE = do_PUT = do_PATCH = do_GET  # noqa: N815

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:  # noqa: ARG002
        """Answer what the base class refuses."""
        self.refuse(int(code), f"not a request that this server knows: {message or f'see {self.help}'}")

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing: there are thousands of requests."""

    def check_bearer(self, token: str, refusal: str) -> None:
        """Raise RefusedError with the refusal unless the request has the token; compared in constant time."""
        header = self.headers.get("Authorization", "").encode("utf-8", "replace")
        if not hmac.compare_digest(header, f"Bearer {token}".encode()):
            raise RefusedError(401, refusal)

    def body(self, max_bytes: int, advice: str = "send less") -> bytes:
        """Return the body of the request; RefusedError if it has no length, is longer than allowed, or ends early."""
        lengths = self.headers.get_all("Content-Length", [])
        if not lengths or "Transfer-Encoding" in self.headers:
            raise RefusedError(411, "the body has no length; send Content-Length, not chunks")
        if len(lengths) > 1 or not (lengths[0].isascii() and lengths[0].isdigit()):
            raise RefusedError(400, f"Content-Length {lengths[0][:99]!r} is not one number; send the number of bytes")
        if len(lengths[0]) > 18 or int(lengths[0]) > max_bytes:
            raise RefusedError(413, f"{lengths[0][:20]} bytes are more than {max_bytes}; {advice}")
        length = int(lengths[0])
        self._reader.allow(self.server.patience_s + length / _BYTES_PER_S)
        body = self.rfile.read(length)
        if len(body) < length:
            raise RefusedError(400, f"the body ends after {len(body)} of {length} bytes; send all of it")
        return body

    def json_body(self, max_bytes: int, expected: str) -> dict[str, Any]:
        """Return the JSON object in the body; RefusedError if it is none, with what is `expected`."""
        try:
            value = parse_json(self.body(max_bytes))
        except ValueError as error:
            raise RefusedError(400, f"the body is not JSON; send {expected}") from error
        if not isinstance(value, dict):
            raise RefusedError(422, f"the body is not a JSON object; send {expected}")
        return value

    def refuse(self, status: int, message: str) -> None:
        """Answer `{"error": message}` and close the connection."""
        self.close_connection = True
        self.answer(json.dumps({"error": message}).encode(), status=status, headers={"Connection": "close"})
        self._linger()

    def answer_json(self, value: Mapping[str, Any]) -> None:
        """Answer with a JSON object."""
        self.answer(json.dumps(value).encode())

    def answer(
        self, content: bytes, kind: str = JSON_TYPE, *, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        """Answer with some bytes of a media type."""
        self.connection.settimeout(self.server.patience_s + len(content) / _SENT_BYTES_PER_S)
        self.send_response(status)
        length = {} if status == HTTPStatus.NOT_MODIFIED else {"Content-Length": str(len(content))}
        for name, value in {"Content-Type": kind, **length, **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _linger(self) -> None:
        """Let a client that is still sending finish for a while: closing at once could lose the answer on its way."""
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_WR)
            self._reader.allow(_LINGER_S)
            while self.rfile.read(2**16):
                pass
