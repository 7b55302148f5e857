"""The agent: an HTTP server that runs ONNX models and returns how long that takes; see `docs/agent.md`. Free of torch.

This process answers requests. The models are in another, its worker.
"""

import ssl
from typing import Any

import onnxruntime as ort

from export.agent.config import PROTOCOL, AgentConfig
from export.agent.process import WorkerProcess
from export.agent.runs import RUNS, check_runs
from export.http_server import HttpHandler, HttpServer, RefusedError, tls_context
from export.machine import operating_system, processor
from ofa.core.errors import DeviceError

_JSON_BYTES = 4096


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
        refusal = "the token is missing or wrong; send `Authorization: Bearer TOKEN`"
        self.check_bearer(self.server.config.token, refusal)
        self.answer_json(self._route())

    def _route(self) -> dict[str, Any]:
        worker, limits = self.server.worker, self.server.config.limits
        match self.command, self.path:
            case "GET", "/about":
                return self.server.about
            case "POST", "/models":
                return worker.ask({"do": "load"}, self.body(limits.max_mib * 2**20, "raise the agent's --max-mib"))
            case "POST", "/runs":
                return worker.ask({"do": "run"} | check_runs(self.json_body(_JSON_BYTES, RUNS)))
            case "DELETE", "/models":
                return worker.ask({"do": "forget"})
        endpoints = "GET /about, POST /models, POST /runs and DELETE /models"
        raise RefusedError(404, f"{self.command} {self.path[:99]} is not known; there are {endpoints}")
