"""The device `remote`: agents on other computers or phones, see `export.agent` and `docs/agent.md`."""

from __future__ import annotations

import hashlib
import json
import math
import ssl
import tempfile
import threading
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import torch

from export.agent.server import MOST_RUNS, PROTOCOL, read_token
from export.formats.onnx import to_onnx
from ofa.core.errors import DeviceError
from ofa.devices.device import Host, HostLost, Model, Runner

_ABOUT = {"runtime": str, "runtime_version": str, "processor": str, "os": str, "threads": int, "precision": str}


_ANSWER_BYTES = 2**22


_EXPORTING = threading.Lock()  # the exporter has global state


class ForgottenModel(UserWarning):
    """An agent had to be sent a model again."""


class Remote:
    """Runs models on agents of one kind, which share them; implements `ofa.devices.device.Device`.

    Args:
        urls: of the agents, such as `http://192.168.1.7:8765`.
        token_file: holds the token that they were started with.
        ca_file: the certificate to trust for https; by default those that the system trusts.
        timeout_s: after which an agent that says nothing is lost; more than its `--max-seconds`.

    Raises:
        DeviceError: an option that is not allowed, an agent that does not answer or refuses the token, or agents that
            differ in anything they say of themselves.
    """

    name = "remote"

    def __init__(
        self, urls: Sequence[str], token_file: str, ca_file: str | None = None, timeout_s: float = 120.0
    ) -> None:
        if isinstance(urls, str) or not urls or len(set(urls)) < len(urls):
            raise DeviceError(f"remote: urls = {urls!r} is not allowed; give a list of agents, each once")
        if type(timeout_s) not in (int, float) or not 0 < timeout_s < math.inf:
            raise DeviceError(f"remote: timeout_s = {timeout_s!r} is not allowed; give seconds above 0")
        token, context = read_token(Path(token_file)), _context(ca_file)
        agents = [Agent(url, token, context, timeout_s) for url in urls]
        said = [agent.about() for agent in agents]
        for agent, about in zip(agents, said, strict=True):
            for key, value in about.items():
                if value != said[0][key]:
                    raise DeviceError(
                        f"remote: {agents[0].url} has {key} {said[0][key]!r}, {agent.url} has {value!r}; give agents "
                        "of one kind, started alike"
                    )
        self.hosts: Sequence[Host] = agents
        self.description: dict[str, Any] = {
            "device": self.name,
            **said[0],
            "torch_version": str(torch.__version__),
            "agents": len(agents),
        }


class Agent:
    """One agent as seen from here; implements `ofa.devices.device.Host`.

    Args:
        url: `http://HOST:PORT` or `https://HOST:PORT`.
        token: sent with each request.
        context: which certificates are trusted for https.
        timeout_s: of connecting, and of waiting for an answer.

    Raises:
        DeviceError: not such a URL.
    """

    def __init__(self, url: str, token: str, context: ssl.SSLContext, timeout_s: float) -> None:
        self.url, self._token, self._context, self._timeout_s = url, token, context, timeout_s
        try:
            parts = urlsplit(url)
            self._secure, self._host, self._port = parts.scheme == "https", parts.hostname or "", parts.port
            allowed = parts.scheme in ("http", "https") and url.rstrip("/") == f"{parts.scheme}://{parts.netloc}"
        except (ValueError, AttributeError, TypeError):
            allowed = False
        if not allowed or not self._host or "@" in url:
            raise DeviceError(f"remote: url {url!r} is not allowed; give http://HOST:PORT or https://HOST:PORT")

    def about(self) -> dict[str, Any]:
        """What the agent says of itself.

        Raises:
            DeviceError: it does not answer, refuses the token, or is of another version.
        """
        try:
            about = self.ask("GET", "/about")
        except HostLost as error:
            raise DeviceError(
                f"remote: {error}; start the agent, or check the address, the network and ca_file"
            ) from error
        wrong = [key for key, kind in _ABOUT.items() if type(about.get(key)) is not kind]
        if about.get("protocol") != PROTOCOL or wrong:
            raise DeviceError(
                f"remote: {self.url} speaks protocol {str(about.get('protocol'))[:99]}, this program {PROTOCOL}; "
                "install the same version on both"
            )
        return {key: about[key] for key in _ABOUT}

    def load(self, model: Model) -> Runner:
        """Exports a model and sends it."""
        return RemoteRunner(self, model, self.send(model))

    def send(self, model: Model) -> str:
        """Exports a model and sends it; by what name the agent knows it."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.onnx"
            with _EXPORTING:
                to_onnx(model.module(), model.input_shape, path)
            onnx = path.read_bytes()
        name = hashlib.sha256(onnx).hexdigest()
        if self.ask("POST", "/models", onnx).get("model") != name:
            raise HostLost(f"{self.url} answers nonsense in the place of a model's name")
        return name

    def ask(self, method: str, path: str, body: bytes | None = None) -> dict[str, Any]:
        """What the agent answers.

        Raises:
            UnknownError: it knows no such thing, such as a model that it has forgotten.
            DeviceError: it refuses; the message is the agent's.
            HostLost: it cannot be reached, fails, or answers nonsense.
        """
        if self._secure:
            connection: HTTPConnection = HTTPSConnection(
                self._host, self._port, timeout=self._timeout_s, context=self._context
            )
        else:
            connection = HTTPConnection(self._host, self._port, timeout=self._timeout_s)
        try:
            with suppress(BrokenPipeError, ConnectionResetError):  # refused before all was sent; the answer says why
                connection.request(method, path, body, {"Authorization": f"Bearer {self._token}"})
            response = connection.getresponse()
            answer = json.loads(response.read(_ANSWER_BYTES))
        except (OSError, HTTPException, ValueError, RecursionError) as error:
            raise HostLost(f"{self.url} does not answer ({error!r})") from error
        finally:
            connection.close()
        if not isinstance(answer, dict) or not (response.status == 200 or 400 <= response.status < 500):
            raise HostLost(f"{self.url} fails with status {response.status}: {str(answer)[:300]}")
        if response.status != 200:
            kind = UnknownError if response.status == 404 else DeviceError
            raise kind(f"remote: {self.url} refuses: {str(answer.get('error', response.status))[:500]}")
        return answer


class UnknownError(DeviceError):
    """An agent knows no such thing."""


@dataclass
class RemoteRunner:
    """Runs a model on an agent; implements `ofa.devices.device.Runner`."""

    agent: Agent
    model: Model
    name: str

    def __call__(self, n: int) -> list[float]:
        """Milliseconds of each run."""
        return [ms for start in range(0, n, MOST_RUNS) for ms in self._runs(min(MOST_RUNS, n - start))]

    def _runs(self, n: int) -> list[float]:
        try:
            answer = self._asked(n)
        except UnknownError:
            warnings.warn(
                f"{self.agent.url} had forgotten a model and was sent it again, which takes time; if it goes on, lower "
                "profile.weights_mib or raise the agent's --max-models and --max-mib",
                ForgottenModel,
                stacklevel=2,
            )
            self.name = self.agent.send(self.model)
            answer = self._asked(n)
        times = answer.get("milliseconds")
        if not isinstance(times, list) or len(times) != n or not all(map(_is_time, times)):
            raise HostLost(f"{self.agent.url} answers nonsense in the place of {n} times")
        return times

    def _asked(self, n: int) -> dict[str, Any]:
        return self.agent.ask("POST", "/runs", json.dumps({"model": self.name, "n": n}).encode())


def _is_time(ms: object) -> bool:
    return isinstance(ms, int | float) and math.isfinite(ms) and ms >= 0


def _context(ca_file: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise DeviceError(
            f"remote: ca_file {ca_file} is not a readable certificate ({error}); give one in PEM"
        ) from error
