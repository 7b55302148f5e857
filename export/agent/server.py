"""The agent: an HTTP server that runs ONNX models and returns how long that takes; see `docs/agent.md`. Free of torch.

This process answers requests. The models are in another, its worker.
"""

import hmac
import ssl
from typing import Any

import onnxruntime as ort

from export.agent.config import MAX_RUNS, PROTOCOL, AgentConfig
from export.agent.process import WorkerProcess
from export.http_server import HttpHandler, HttpServer, RefusedError, tls_context
from export.machine import operating_system, processor
from ofa.core.errors import DeviceError

_JSON_BYTES = 4096
_RUNS = '{"model": id, "n": int}'


def serve(config: AgentConfig) -> HttpServer:
    """Return an agent that listens: `serve_forever` answers requests, `server_close` ends it and its worker.

    An address or a certificate that cannot be used, or an ONNX Runtime that does not start, is a DeviceError.
    """
    context = tls_context(config.cert, config.key, "see docs/agent.md")
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


class _Server(HttpServer):
    """The server of an agent, with its worker."""

    def __init__(self, config: AgentConfig, context: ssl.SSLContext | None) -> None:
        self.config, self.worker = config, WorkerProcess(config.limits)
        self.about = {
            "protocol": PROTOCOL,
            "runtime": "onnxruntime",
            "runtime_version": ort.__version__,
            "processor": processor(),
            "os": operating_system(),
            "threads": config.limits.threads,
            "precision": "float32",
        }
        super().__init__((config.host, config.port), _Handler, context, patience_s=config.patience_s)

    def server_close(self) -> None:
        super().server_close()
        self.worker.close()


class _Handler(HttpHandler):
    """One request and its answer in JSON; nothing else of a request is looked at before the token."""

    server: _Server
    help = "docs/agent.md"

    def respond(self) -> None:
        self._authorize()
        self.answer_json(self._route())

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
                return worker.ask({"do": "load"}, self.body(limits.max_mib * 2**20, "raise the agent's --max-mib"))
            case "POST", "/runs":
                return worker.ask({"do": "run"} | check_runs(self.json_body(_JSON_BYTES, _RUNS)))
            case "DELETE", "/models":
                return worker.ask({"do": "forget"})
        endpoints = "GET /about, POST /models, POST /runs and DELETE /models"
        raise RefusedError(404, f"{self.command} {self.path[:99]} is not known; there are {endpoints}")


def check_runs(runs: dict[str, Any]) -> dict[str, Any]:
    """Return the model and the number of runs that a body asks for; RefusedError if it says neither or too much."""
    if set(runs) != {"model", "n"} or type(runs["model"]) is not str:
        raise RefusedError(422, f"the body does not say what to run; send {_RUNS}")
    if type(runs["n"]) is not int or not 1 <= runs["n"] <= MAX_RUNS:
        raise RefusedError(422, f"n = {str(runs['n'])[:99]} is not allowed; give a whole number from 1 to {MAX_RUNS}")
    return runs
