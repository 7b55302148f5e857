"""The server of `ofa serve`: pages for browsers, and jobs that come from the device `browser`. Free of torch.

Two kinds of clients: pages, which came in by a link and have a cookie, and processes of this computer, which have the
key that `export.web.running` keeps.
"""

import json
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from export.agent.runs import RUNS, check_runs
from export.errors import check_number
from export.http_server import HttpHandler, HttpServer, RefusedError, tls_context
from export.web.access import Access
from export.web.assets import assets
from export.web.hub import Hub, read_about
from ofa.core.errors import DeviceError

PROTOCOL = 1
_JSON_BYTES = 2**20
"""Largest answer of a page to a job: the times of 10,000 runs."""
_SMALL_BYTES = 4096
_MODEL_BYTES = 2**30
_CSP = (
    "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; connect-src 'self'; "
    "style-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "Content-Security-Policy": _CSP,
    "Cross-Origin-Opener-Policy": "same-origin",  # with the next, pages have threads and a fine clock
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
_DRAWING = {"Content-Security-Policy": _CSP.replace("style-src 'self'", "style-src 'self' 'unsafe-inline'")}
"""For charts, whose parts plotly styles one by one."""


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """How the server is started.

    Attributes:
        key: what the device `browser` sends to be let in.
        on_token: told the token of the next link, whenever one was used.
        live: returns the state of a run, which the first page shows then; see `ofa.report.live`.
        report: of that run, a file that may not be there yet.
        script: that draws the run's charts.
        patience_s: seconds that the head of a request may take.
    """

    key: str = field(repr=False)
    host: str = "127.0.0.1"
    port: int = 8518
    cert: Path | None = None
    tls_key: Path | None = None
    on_token: Callable[[str], None] = lambda token: None
    live: Callable[[], dict[str, Any]] | None = None
    report: Path | None = None
    script: bytes = b""
    patience_s: float = 10.0

    def __post_init__(self) -> None:
        check_number("serve: port", self.port, 0, 2**16 - 1, whole=True)
        if (self.cert is None) != (self.tls_key is None):
            raise DeviceError("serve: TLS needs both a certificate and a key; give --cert and --key, or neither")


def serve(config: ServeConfig) -> "WebServer":
    """Return a server that listens: `serve_forever` answers requests.

    DeviceError if the address or the certificate cannot be used, or onnxruntime-web is not there.
    """
    context = tls_context(config.cert, config.tls_key, "see docs/serve.md")
    try:
        return WebServer(config, context)
    except OSError as error:
        address = f"{config.host} port {config.port}"
        raise DeviceError(f"the server cannot listen on {address} ({error}); give another --host or --port") from error


class WebServer(HttpServer):
    """The server, with its hub and those who may use it."""

    max_connections = 128  # a browser opens up to six

    def __init__(self, config: ServeConfig, context: ssl.SSLContext | None) -> None:
        self.config, self.access, self.hub, self.assets = config, Access(config.on_token), Hub(), assets()
        self.is_secure = context is not None
        super().__init__((config.host, config.port), _Handler, context, patience_s=config.patience_s)

    @property
    def port(self) -> int:
        """The port that it listens on."""
        return int(self.server_address[1])

    @property
    def cookie_name(self) -> str:
        """The name of its cookies, with the port, which browsers do not tell apart."""
        return f"ofa-{self.port}"


class _Handler(HttpHandler):
    """One request and its answer."""

    server: WebServer
    protocol_version = "HTTP/1.1"  # thousands of requests of a page share a connection
    help = "docs/serve.md"

    def respond(self) -> None:
        self._check_host()
        path = self.path.partition("?")[0]
        config = self.server.config
        if path == "/":
            path = "/measure.html" if config.live is None else "/live.html"
        if self.command in ("GET", "HEAD") and path in self.server.assets:
            self._asset(path)
        elif self.command == "GET" and path == "/plotly.min.js" and config.script:
            self.answer(config.script, "text/javascript; charset=utf-8", headers=_HEADERS)
        elif self.command == "GET" and path == "/report" and config.report is not None:
            self._report(config.report)
        elif path.startswith("/api/"):
            self._check_origin()
            self._page(path.removeprefix("/api/"))
        elif path.startswith("/device/"):
            self.check_bearer(self.server.config.key, "the key is missing or wrong")
            self.answer_json(self._device(path.removeprefix("/device/").split("/")))
        else:
            raise RefusedError(404, f"{self.command} {self.path[:99]} is not known; open the link that ofa serve shows")

    do_HEAD = HttpHandler.do_GET  # noqa: N815

    def _asset(self, path: str) -> None:
        """Answer with a file, unless the browser has it."""
        file, kind = self.server.assets[path]
        about = file.stat()
        headers = _HEADERS | {"ETag": f'"{about.st_size}-{about.st_mtime_ns}"'}
        headers |= _DRAWING if path == "/live.html" else {}
        if self.headers.get("If-None-Match") == headers["ETag"]:
            self.answer(b"", kind, status=304, headers=headers)
        else:
            self.answer(file.read_bytes(), kind, headers=headers)

    # Pages

    def _page(self, endpoint: str) -> None:
        hub = self.server.hub
        match self.command, endpoint.split("/"):
            case "GET", ["run"]:
                self._cookie()
                self.answer_json(self._run())
            case "GET", ["models", digest]:
                page = parse_qs(self.path.partition("?")[2]).get("page", [""])[0]
                model = hub.model(page, self._cookie(), digest)
                self.answer(model, "application/octet-stream", headers=_HEADERS | {"Cache-Control": "no-store"})
            case "POST", ["enter" | "join"]:
                self._enter(joins=endpoint == "join")
            case "POST", ["next"]:
                name, owner, message = self._message(_JSON_BYTES)
                job = hub.next_job(name, owner, message.get("answer"))
                self.answer_json({"job": job, "progress": hub.progress})
            case "POST", ["alive"]:
                name, owner, message = self._message(_SMALL_BYTES)
                hub.alive(name, owner, message.get("hidden") is True)
                self.answer_json({})
            case "POST", ["leave"]:
                name, owner, _ = self._message(_SMALL_BYTES)
                hub.leave(name, owner)
                self.answer_json({})
            case _:
                raise RefusedError(404, f"{self.command} {self.path[:99]} is not known")

    def _message(self, max_bytes: int) -> tuple[str, str, dict[str, Any]]:
        """Return the name of the page that sends this, its browser's cookie, and the message."""
        owner = self._cookie()
        message = self.json_body(max_bytes, '{"page": name, ...}')
        name = message.get("page")
        if not isinstance(name, str):
            raise RefusedError(422, 'the body does not name the page; send {"page": name, ...}')
        return name, owner, message

    def _run(self) -> dict[str, Any]:
        """Return the state of the run, and the pages that are open."""
        live = self.server.config.live
        if live is None:
            raise RefusedError(404, "no run is served; start `ofa serve RUN`")
        return live() | {"pages": [page.about | {"hidden": page.hidden} for page in self.server.hub.pages()]}

    def _report(self, file: Path) -> None:
        self._cookie()
        if not file.is_file():
            raise RefusedError(404, "the run has no report yet; wait until it is finished")
        headers = {name: value for name, value in _HEADERS.items() if name != "Content-Security-Policy"}
        self.answer(file.read_bytes(), "text/html; charset=utf-8", headers=headers)  # it has a policy of its own

    def _enter(self, *, joins: bool) -> None:
        """Let a page in that has a cookie or the link's token; one that `joins` measures."""
        message, headers = self.json_body(_SMALL_BYTES, '{"token": text, "about": {...}}'), {}
        owner, hub = self._sent_cookie(), self.server.hub
        about = read_about(message.get("about")) if joins else {}  # before the token is used up
        if not self.server.access.knows(owner):
            owner = self.server.access.enter(str(message.get("token", "")))
            secure = "; Secure" if self.server.is_secure else ""
            headers["Set-Cookie"] = f"{self.server.cookie_name}={owner}; Path=/; HttpOnly; SameSite=Strict{secure}"
        answer = {"page": hub.join(owner, about), "progress": hub.progress} if joins else {}
        self.answer(json.dumps(answer).encode(), headers=headers)

    def _cookie(self) -> str:
        cookie = self._sent_cookie()
        if not self.server.access.knows(cookie):
            raise RefusedError(403, "this browser is not let in; open the link that ofa serve shows")
        return cookie

    def _sent_cookie(self) -> str:
        # By hand: Python's parser drops all cookies after one that it cannot read, which may be another program's.
        pairs = (pair.strip().partition("=") for pair in self.headers.get("Cookie", "").split(";"))
        return next((value for name, _, value in pairs if name == self.server.cookie_name), "")

    def _check_host(self) -> None:
        """Refuse names that are not this server's: a page elsewhere may let its name point here."""
        sent = self.headers.get("Host", "")
        try:
            host = urlsplit(f"//{sent}").hostname or ""
        except ValueError:
            host = ""
        if host not in ("localhost", self.server.config.host) and not _is_address(host):
            raise RefusedError(421, f"host {sent[:99]!r} is not this server; open the link that ofa serve shows")

    def _check_origin(self) -> None:
        """Refuse what pages of other origins send."""
        origin = self.headers.get("Origin")
        scheme = "https" if self.server.is_secure else "http"
        if origin is not None and origin != f"{scheme}://{self.headers.get('Host', '')}":
            raise RefusedError(403, "another page sends this; open the link that ofa serve shows")

    # The device

    def _device(self, parts: list[str]) -> dict[str, Any]:
        hub = self.server.hub
        match self.command, parts:
            case "GET", ["pages"]:
                pages = [{"name": page.id, "about": page.about} for page in hub.pages()]
                return {"protocol": PROTOCOL, "pages": pages}
            case "POST", ["progress"]:
                progress = self.json_body(_SMALL_BYTES, '{"done": int, "total": int}')
                hub.show_progress(int(progress["done"]), int(progress["total"]))
                return {}
            case "POST", [name, "start"]:
                options = self.json_body(_SMALL_BYTES, '{"backend": name, "threads": int}')
                return hub.start(name, str(options["backend"]), int(options["threads"]))
            case "POST", [name, "models"]:
                return {"model": hub.load(name, self.body(_MODEL_BYTES))}
            case "POST", [name, "runs"]:
                runs = check_runs(self.json_body(_SMALL_BYTES, RUNS))
                return {"milliseconds": hub.run(name, runs["model"], runs["n"])}
        raise RefusedError(404, f"{self.command} {self.path[:99]} is not known")


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
