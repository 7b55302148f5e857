"""The server of `ofa serve`: pages for browsers, and jobs that come from the device `browser`. Free of torch.

Two kinds of clients: pages, which came in by a link and have a cookie, and processes of this computer, which have the
key that `export.web.running` keeps.
"""

import hmac
import json
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from http.cookies import CookieError, SimpleCookie
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from export.agent.server import check_runs
from export.errors import check_number
from export.http_server import HttpHandler, HttpServer, RefusedError, tls_context
from export.web.access import Access
from export.web.assets import assets
from export.web.hub import Hub, read_about
from ofa.core.errors import DeviceError

PROTOCOL = 1
_COOKIE = "ofa"
_JSON_BYTES = 2**20
"""Of an answer: the times of 10,000 runs."""
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
            self._authorize()
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

    # A run

    def _run(self) -> dict[str, Any]:
        """Return the state of the run, and the pages that are open."""
        self._cookie()
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

    # Pages

    def _page(self, endpoint: str) -> None:
        hub = self.server.hub
        if self.command == "GET" and endpoint.startswith("models/"):
            page = parse_qs(self.path.partition("?")[2]).get("page", [""])[0]
            model = hub.model(page, self._cookie(), endpoint.removeprefix("models/"))
            self.answer(model, "application/octet-stream", headers=_HEADERS | {"Cache-Control": "no-store"})
            return
        if self.command == "GET" and endpoint == "run":
            self.answer_json(self._run())
            return
        if self.command != "POST" or endpoint not in ("enter", "join", "next", "alive", "leave"):
            raise RefusedError(404, f"{self.command} {self.path[:99]} is not known")
        if endpoint in ("enter", "join"):
            self._enter(joins=endpoint == "join")
            return
        owner = self._cookie()
        limit = _JSON_BYTES if endpoint == "next" else _SMALL_BYTES
        said = self.json_body(limit, '{"page": name, ...}')
        name = said.get("page")
        if not isinstance(name, str):
            raise RefusedError(422, 'the body does not name the page; send {"page": name, ...}')
        match endpoint:
            case "next":
                job = hub.next_job(name, owner, said.get("answer"))
                self.answer_json({"job": job, "progress": hub.progress})
            case "alive":
                hub.alive(name, owner, said.get("hidden") is True)
                self.answer_json({})
            case "leave":
                hub.leave(name, owner)
                self.answer_json({})

    def _enter(self, *, joins: bool) -> None:
        """Let a page in that has a cookie or the link's token; one that `joins` measures."""
        said, headers = self.json_body(_SMALL_BYTES, '{"token": text, "about": {...}}'), {}
        owner, hub = self._given_cookie(), self.server.hub
        about = read_about(said.get("about")) if joins else {}  # before the token is used up
        if not self.server.access.knows(owner):
            owner = self.server.access.enter(str(said.get("token", "")))
            secure = "; Secure" if self.server.is_secure else ""
            headers["Set-Cookie"] = f"{_COOKIE}={owner}; Path=/; HttpOnly; SameSite=Strict{secure}"
        answer = {"page": hub.join(owner, about), "progress": hub.progress} if joins else {}
        self.answer(json.dumps(answer).encode(), headers=headers)

    def _cookie(self) -> str:
        cookie = self._given_cookie()
        if not self.server.access.knows(cookie):
            raise RefusedError(403, "this browser is not let in; open the link that ofa serve shows")
        return cookie

    def _given_cookie(self) -> str:
        try:
            cookies = SimpleCookie(self.headers.get("Cookie", ""))
        except CookieError:
            return ""
        return cookies[_COOKIE].value if _COOKIE in cookies else ""

    def _check_host(self) -> None:
        """Refuse names that are not this server's: a page elsewhere may let its name point here."""
        given = self.headers.get("Host", "")
        try:
            host = urlsplit(f"//{given}").hostname or ""
        except ValueError:
            host = ""
        if host not in ("localhost", self.server.config.host) and not _is_address(host):
            raise RefusedError(421, f"host {given[:99]!r} is not this server; open the link that ofa serve shows")

    def _check_origin(self) -> None:
        """Refuse what pages of other origins send."""
        origin = self.headers.get("Origin")
        scheme = "https" if self.server.is_secure else "http"
        if origin is not None and origin != f"{scheme}://{self.headers.get('Host', '')}":
            raise RefusedError(403, "another page sends this; open the link that ofa serve shows")

    # The device

    def _authorize(self) -> None:
        header = self.headers.get("Authorization", "").encode("utf-8", "replace")
        if not hmac.compare_digest(header, f"Bearer {self.server.config.key}".encode()):
            raise RefusedError(401, "the key is missing or wrong")

    def _device(self, parts: list[str]) -> dict[str, Any]:
        hub = self.server.hub
        match self.command, parts:
            case "GET", ["pages"]:
                found = [{"name": page.id, "about": page.about} for page in hub.pages()]
                return {"protocol": PROTOCOL, "pages": found}
            case "POST", ["progress"]:
                said = self.json_body(_SMALL_BYTES, '{"done": int, "total": int}')
                hub.show_progress(int(said["done"]), int(said["total"]))
                return {}
            case "POST", [name, "start"]:
                said = self.json_body(_SMALL_BYTES, '{"backend": name, "threads": int}')
                return hub.start(name, str(said["backend"]), int(said["threads"]))
            case "POST", [name, "models"]:
                return {"model": hub.load(name, self.body(_MODEL_BYTES))}
            case "POST", [name, "runs"]:
                runs = check_runs(self.json_body(_SMALL_BYTES, '{"model": id, "n": int}'))
                return {"milliseconds": hub.run(name, runs["model"], runs["n"])}
        raise RefusedError(404, f"{self.command} {self.path[:99]} is not known")


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
