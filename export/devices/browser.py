"""The device `browser`: pages that are open in browsers, which `ofa serve` lets in; see `docs/serve.md`."""

import json
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, ClassVar

from export.devices.local import ToFile, check_batch, onnx_file, shared_description
from export.devices.remote import Agent
from export.errors import check_choice, check_number
from export.formats.precision import PRECISIONS
from export.web.hub import HIDDEN_S, JOB_S
from export.web.running import Running, find
from export.web.server import PROTOCOL
from ofa.core.errors import DeviceError
from ofa.devices.device import Host, HostLost

BACKENDS = ("wasm", "webgpu")
_ANSWER_S = 30.0
_LOOK_AGAIN_S = 1.0
_SHOW_EVERY_S = 1.0


class Browser:
    """Run models by onnxruntime-web in pages of `ofa serve`; implements `ofa.devices.device.OpenDevice`.

    Pages share the models. One that is closed is waited for, if it was the last.

    Args:
        backend: "wasm", which runs on the processor, or "webgpu".
        threads: of one run by wasm. More than one needs https, or a browser on this computer.
        pages: how many to wait for before measuring begins.
        wait_minutes: how long to wait for them.
        precision: of the files, one that ONNX Runtime runs on a CPU; see `export.formats.precision`.
        batch: number of images in one run, from 1 to 4096.

    Raises:
        DeviceError: an option is not allowed, or no `ofa serve` answers. Where `description` or `hosts` is read: no
            page was opened in time, or pages differ in their descriptions.
    """

    name = "browser"
    precisions: ClassVar[tuple[str, ...]] = PRECISIONS

    def __init__(
        self,
        *,
        backend: str = "wasm",
        threads: int = 1,
        pages: int = 1,
        wait_minutes: float = 30.0,
        precision: str = "float32",
        batch: int = 1,
    ) -> None:
        check_choice("browser: backend", backend, BACKENDS)
        check_number("browser: threads", threads, 1, 64, whole=True)
        check_number("browser: pages", pages, 1, 32, whole=True)
        check_number("browser: wait_minutes", wait_minutes, 0.001, 10_000)
        check_choice("browser: precision", precision, self.precisions)
        check_batch("browser", batch)
        self._options: dict[str, Any] = {"backend": backend, "threads": threads}
        self._more = {"precision": precision, "batch": batch}
        self._n_pages, self._wait_s = pages, 60 * wait_minutes
        self._to_file = partial(onnx_file, precision=precision, batch=batch)
        _Server(find()).pages()
        self._shown = 0.0

    @cached_property
    def hosts(self) -> Sequence[Host]:
        """The pages that are open when this is first read; see `wait_for_hosts`."""
        return self._wait(self._n_pages)

    @cached_property
    def description(self) -> dict[str, Any]:
        """What a latency table records: of the pages, with the versions of browser and runtime."""
        pages = [host for host in self.hosts if isinstance(host, Page)]
        return shared_description(self.name, {page.name: page.description for page in pages}, **self._more)

    def wait_for_hosts(self) -> Sequence[Host]:
        """Return the pages that are open, or wait for one; they are of the same kind as the first ones."""
        pages = self._wait(1)
        shared_description(self.name, {"the first page": self._kind} | {page.name: page.description for page in pages})
        return pages

    def show_progress(self, done: int, total: int) -> None:
        """Show on the pages how far the measurement is, at most once a second, if the server is there."""
        if time.monotonic() - self._shown > _SHOW_EVERY_S or done >= total:
            self._shown = time.monotonic()
            with suppress(DeviceError):
                _Server(find()).ask("POST", "/progress", {"done": done, "total": total})

    @property
    def _kind(self) -> dict[str, Any]:
        more = {"device", "torch_version", *self._more}
        return {key: value for key, value in self.description.items() if key not in more}

    def _wait(self, n: int) -> list["Page"]:
        """Return the pages that are open, once there are `n`, with the runtime started in each.

        The server may be started again meanwhile.
        """
        deadline = time.monotonic() + self._wait_s
        while True:
            opened, missing = list[dict[str, Any]](), "open the link that `ofa serve` shows, and start again"
            try:
                server = _Server(find())
                opened = server.pages()
            except DeviceError as error:
                missing = str(error)
            started = [self._page(server, one) for one in opened] if len(opened) >= n else []
            pages = [page for page in started if page is not None]
            if len(pages) >= n:
                return pages
            if time.monotonic() > deadline:
                waited = f"{len(opened)} of {n} pages were opened within {self._wait_s / 60:g} minutes"
                raise DeviceError(f"browser: {waited}; {missing}")
            time.sleep(_LOOK_AGAIN_S)

    def _page(self, server: "_Server", listed: dict[str, Any]) -> "Page | None":
        page = Page(server.running, listed["name"], self._to_file)
        try:
            runtime = page.ask("POST", "/start", json.dumps(self._options).encode())
        except HostLost:
            return None
        about = {"runtime": "onnxruntime-web", "runtime_version": runtime["runtime_version"]} | listed["about"]
        page.description = about | {"clock": runtime["clock"]} | self._options
        return page


class Page(Agent):
    """A page in a browser, which the server passes requests on to; implements `ofa.devices.device.Host`."""

    device = "browser"

    def __init__(self, running: Running, name: str, to_file: ToFile) -> None:
        seconds = JOB_S + HIDDEN_S + _ANSWER_S
        options: dict[str, Any] = {"token": running.key, "context": running.context(), "timeout_s": seconds}
        super().__init__(running.url, **options, to_file=to_file, path=f"/device/{name}")
        self.name = name
        self.description: dict[str, Any] = {}


@dataclass(frozen=True)
class _Server:
    """The server of this computer."""

    running: Running

    def pages(self) -> list[dict[str, Any]]:
        """Return name and description of the pages that are open."""
        answer = self.ask("GET", "/pages")
        if answer.get("protocol") != PROTOCOL:
            raise DeviceError(f"browser: {self.running.url} is of another version; stop it and start `ofa serve` again")
        return list(answer["pages"])

    def ask(self, method: str, path: str, message: dict[str, Any] | None = None) -> dict[str, Any]:
        """Return the server's answer; DeviceError if it does not answer."""
        agent = Agent(
            self.running.url,
            token=self.running.key,
            context=self.running.context(),
            timeout_s=_ANSWER_S,
            to_file=onnx_file,
            path="/device",
        )
        try:
            return agent.ask(method, path, json.dumps(message).encode() if message is not None else None)
        except HostLost as lost:
            raise DeviceError(f"browser: {lost}; start `ofa serve` in another terminal") from lost
