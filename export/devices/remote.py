"""The device `remote`: agents on other computers or phones; see `docs/agent.md`."""

import hashlib
import json
import ssl
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any, ClassVar
from urllib.parse import urlsplit

from export.agent.config import MAX_RUNS, PROTOCOL, are_times, read_token
from export.devices.local import ToFile, check_batch, onnx_file, shared_description
from export.errors import MAX_SECONDS, check_choice, check_number, local_path
from export.formats.precision import PRECISIONS
from ofa.core.errors import DeviceError
from ofa.core.files import parse_json
from ofa.devices.device import Host, HostLost, Model, Runner

_ABOUT = {"runtime": str, "runtime_version": str, "processor": str, "os": str, "threads": int, "precision": str}
_ANSWER_BYTES = 2**22


class ForgottenModel(UserWarning):
    """An agent had to be sent a model again."""


class UnknownError(DeviceError):
    """An agent does not know what it is asked for, such as a model that it has forgotten."""


class Remote:
    """Run models on agents of one kind, which share them; implements `ofa.devices.device.Device`.

    Args:
        urls: of the agents, such as `http://192.168.1.7:8765`.
        token_file: file with the token that the agents were started with.
        ca_file: certificate to trust for https; by default those that the system trusts.
        timeout_s: seconds after which an agent that does not answer is lost; more than its `--max-seconds`.
        precision: of the files, one that ONNX Runtime runs on a CPU; see `export.formats.precision`.
        batch: number of images in one run, from 1 to 4096.

    Raises:
        DeviceError: an option is not allowed, an agent does not answer or refuses the token, or the agents differ in
            their descriptions.
    """

    name = "remote"
    precisions: ClassVar[tuple[str, ...]] = PRECISIONS

    def __init__(
        self,
        urls: Sequence[str],
        token_file: str,
        *,
        ca_file: str | None = None,
        timeout_s: float = 120.0,
        precision: str = "float32",
        batch: int = 1,
    ) -> None:
        if not isinstance(urls, list | tuple) or not urls or len(set(map(str, urls))) < len(urls):
            raise DeviceError(f"remote: urls = {urls!r:.200} is not allowed; give a list of agents, each once")
        check_number("remote: timeout_s", timeout_s, 0.001, MAX_SECONDS)
        check_choice(f"{self.name}: precision", precision, self.precisions)
        check_batch(self.name, batch)
        for name, path in (("token_file", token_file), ("ca_file", ca_file or "")):
            if not isinstance(path, str):
                raise DeviceError(f"remote: {name} = {path!r:.60} is not allowed; give the path of a file")
        token, context = read_token(token_file), _context(ca_file)
        to_file = partial(onnx_file, precision=precision, batch=batch)
        agents = [Agent(url, token=token, context=context, timeout_s=timeout_s, to_file=to_file) for url in urls]
        self.hosts: Sequence[Host] = agents
        abouts = {agent.url: agent.about() for agent in agents}
        self.description = shared_description(self.name, abouts, precision=precision, batch=batch)


class Agent:
    """One agent, at `http://HOST:PORT` or `https://HOST:PORT`; implements `ofa.devices.device.Host`.

    `to_file` gives the ONNX file of a model to send; `path` is what the paths of requests begin with.

    Attributes:
        device: name of the device that it belongs to, for error messages.
    """

    device = "remote"

    def __init__(
        self, url: str, *, token: str, context: ssl.SSLContext | None, timeout_s: float, to_file: ToFile, path: str = ""
    ) -> None:
        self.url, self._token, self._to_file, self._path = url, token, to_file, path
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
            allowed = parts.scheme in ("http", "https") and url.rstrip("/") == f"{parts.scheme}://{parts.netloc}"
        except (ValueError, AttributeError, TypeError):
            allowed = False
        if not allowed or not host or "@" in url:
            raise DeviceError(f"remote: url {url!r:.200} is not allowed; give http://HOST:PORT or https://HOST:PORT")
        kind = HTTPConnection if parts.scheme == "http" else partial(HTTPSConnection, context=context)
        self._connect = partial(kind, host, port, timeout=timeout_s)

    def about(self) -> dict[str, Any]:
        """Return the agent's description of itself; DeviceError if it does not answer or has another version."""
        try:
            about = self.ask("GET", "/about")
        except HostLost as error:
            raise DeviceError(f"remote: {error}; start the agent, or check its address and ca_file") from error
        wrong = [key for key, kind in _ABOUT.items() if type(about.get(key)) is not kind]
        if about.get("protocol") != PROTOCOL or wrong:
            protocols = f"speaks protocol {str(about.get('protocol'))[:99]}, this program {PROTOCOL}"
            raise DeviceError(f"remote: {self.url} {protocols}; install the same version on both")
        return {key: about[key] for key in _ABOUT}

    def load(self, model: Model) -> Runner:
        """Send a model; see `send`."""
        return RemoteRunner(self, model, self.send(model))

    def send(self, model: Model) -> str:
        """Send the file of a model, and return the name by which the agent knows it; see `ask`."""
        with self._to_file(model) as path:
            onnx = path.read_bytes()
        name = hashlib.sha256(onnx).hexdigest()
        if self.ask("POST", "/models", onnx).get("model") != name:
            raise HostLost(f"{self.url} answers with another name than the model's")
        return name

    def ask(self, method: str, path: str, body: bytes | None = None) -> dict[str, Any]:
        """Return the agent's answer to a request; DeviceError with the agent's message if it refuses.

        UnknownError if it does not know the path or the model; HostLost if it cannot be reached, fails, or its answer
        makes no sense.
        """
        connection = self._connect()
        try:
            with suppress(BrokenPipeError, ConnectionResetError):  # refused while sending; the answer says why
                connection.request(method, self._path + path, body, {"Authorization": f"Bearer {self._token}"})
            response = connection.getresponse()
            answer = parse_json(response.read(_ANSWER_BYTES))
        except (OSError, HTTPException, ValueError) as error:
            raise HostLost(f"{self.url} does not answer ({error!r})") from error
        finally:
            connection.close()
        if not isinstance(answer, dict) or not (response.status == 200 or 400 <= response.status < 500):
            raise HostLost(f"{self.url} fails with status {response.status}: {str(answer)[:300]}")
        if response.status != 200:
            kind = UnknownError if response.status == 404 else DeviceError
            reason = " ".join(str(answer.get("error", response.status)).split())
            raise kind(f"{self.device}: {self.url} refuses: {reason[:500]}")
        return answer


@dataclass
class RemoteRunner:
    """Time the runs of a model on an agent; implements `ofa.devices.device.Runner`."""

    agent: Agent
    model: Model
    name: str

    def __call__(self, n: int) -> list[float]:
        """Return the milliseconds of each of `n` runs; a model that the agent has forgotten is sent again."""
        return [ms for start in range(0, n, MAX_RUNS) for ms in self._time(min(MAX_RUNS, n - start))]

    def _time(self, n: int) -> list[float]:
        try:
            answer = self._ask(n)
        except UnknownError:
            advice = "if it recurs, lower profile.weights_mib or raise the agent's --max-models and --max-mib"
            warnings.warn(f"{self.agent.url} had forgotten a model; {advice}", ForgottenModel, stacklevel=2)
            self.name = self.agent.send(self.model)
            answer = self._ask(n)
        times_ms = answer.get("milliseconds")
        if not are_times(times_ms, n):
            raise HostLost(f"{self.agent.url} answers with something else than {n} times")
        return times_ms

    def _ask(self, n: int) -> dict[str, Any]:
        return self.agent.ask("POST", "/runs", json.dumps({"model": self.name, "n": n}).encode())


def _context(ca_file: str | None) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file and local_path(ca_file))
    except OSError as error:
        raise DeviceError(f"remote: ca_file {ca_file} is not a certificate in PEM ({error}); give another") from error
