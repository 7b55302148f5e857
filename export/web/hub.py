"""The pages that are open in browsers, and the jobs that they are given; see `docs/serve.md`. Free of torch.

A page asks for its next job, works it off and asks again with the answer. Whatever a page says is checked here.
"""

import hashlib
import itertools
import secrets
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from export.agent.config import are_times
from export.http_server import RefusedError

MAX_PAGES = 32
_POLL_S = 20.0
JOB_S = 120.0
"""How long a page may take for a job."""
_SILENT_S = 30.0
"""A page that says nothing for so long is lost."""
HIDDEN_S = 900.0
"""How much longer, while it is hidden."""
_TEXT = 200
_ABOUT = ("processor", "os", "browser")
_STARTED = ("runtime_version", "clock")


@dataclass
class _Job:
    id: int
    what: dict[str, Any]
    model: bytes = b""
    answer: dict[str, Any] | None = None
    since: float = field(default_factory=time.monotonic)


@dataclass
class Page:
    """A page that is open in a browser.

    Attributes:
        id: name of the page, unknown to other pages.
        about: its processor, system and browser.
        owner: cookie of the browser.
    """

    id: str
    about: dict[str, str]
    owner: str
    seen: float = field(default_factory=time.monotonic)
    polls: int = 0
    hidden: bool = False
    gone: bool = False
    job: _Job | None = None
    asking: threading.Lock = field(default_factory=threading.Lock)

    def is_silent(self) -> bool:
        """Return whether the page has said nothing for long."""
        return not self.polls and time.monotonic() - self.seen > _SILENT_S


class Hub:
    """Pages and jobs; safe to use from many threads.

    Attributes:
        progress: how far the measurement is, as `(done, total)`, for pages to show.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._pages: dict[str, Page] = {}
        self._ids = itertools.count()
        self.progress: tuple[int, int] | None = None

    # What pages do

    def join(self, owner: str, about: dict[str, str]) -> str:
        """Add a page of a browser, the `owner`, and return its name; RefusedError if there are too many."""
        with self._changed:
            self._drop_silent()
            if len(self._pages) >= MAX_PAGES:
                raise RefusedError(503, f"there are {MAX_PAGES} pages already; close some")
            page = Page(secrets.token_urlsafe(12), about, owner)
            self._pages[page.id] = page
            self._changed.notify_all()
            return page.id

    def next_job(self, name: str, owner: str, answer: Any) -> dict[str, Any] | None:
        """Take a page's answer to its job, if any, and return its next, which it may have to wait for; or None."""
        with self._changed:
            page = self._of(name, owner)
            if answer is not None:
                self._take(page, answer)
            page.polls += 1
            before = self.progress
            try:
                self._changed.wait_for(lambda: _unanswered(page) or page.gone or self.progress != before, _POLL_S)
            finally:
                page.polls -= 1
                page.seen = time.monotonic()
            if page.gone:
                raise RefusedError(404, "this page has left; open it again")
            if not _unanswered(page):
                return None
            assert page.job is not None
            return {"id": page.job.id} | page.job.what

    def alive(self, name: str, owner: str, hidden: bool) -> None:
        """Note that a page is there, and whether it is hidden."""
        with self._changed:
            page = self._of(name, owner)
            page.seen, page.hidden = time.monotonic(), hidden

    def leave(self, name: str, owner: str) -> None:
        """Forget a page that is closed."""
        with self._changed:
            self._drop(self._of(name, owner))

    def model(self, name: str, owner: str, digest: str) -> bytes:
        """Return the file of the model that a page has to load; RefusedError for any other."""
        with self._changed:
            job = self._of(name, owner).job
            if job is None or job.what.get("model") != digest or not job.model:
                raise RefusedError(404, "this page has no such model to load")
            return job.model

    # What the device does

    def pages(self) -> list[Page]:
        """Return the pages that are there, in the order in which they came."""
        with self._changed:
            self._drop_silent()
            return list(self._pages.values())

    def show_progress(self, done: int, total: int) -> None:
        """Show on all pages how far the measurement is."""
        with self._changed:
            self.progress = done, total
            self._changed.notify_all()

    def start(self, name: str, backend: str, threads: int) -> dict[str, str]:
        """Start the runtime in a page, without models; return its version, and how fine the page's clock is."""
        answer = self._ask(name, {"do": "start", "backend": backend, "threads": threads})
        return _texts(answer.get("about"), _STARTED)

    def load(self, name: str, model: bytes) -> str:
        """Let a page load a model; return the name by which it knows it."""
        digest = hashlib.sha256(model).hexdigest()
        self._ask(name, {"do": "load", "model": digest}, model)
        return digest

    def run(self, name: str, model: str, n: int) -> list[float]:
        """Return the milliseconds of `n` runs of a model in a page."""
        answer = self._ask(name, {"do": "run", "model": model, "n": n})
        times_ms = answer.get("milliseconds")
        if not are_times(times_ms, n):
            raise RefusedError(502, f"the page answers with something else than {n} times")
        if sum(times_ms) > 1000 * answer["seconds"]:
            raise RefusedError(502, "the page says that its runs took longer than it was given")
        return [float(ms) for ms in times_ms]

    def _ask(self, name: str, what: dict[str, Any], model: bytes = b"") -> dict[str, Any]:
        """Give a page a job and return its answer; RefusedError if it fails, is too slow, or has left."""
        with self._changed:
            page = self._pages.get(name)
        if page is None:
            raise RefusedError(503, "the page has left")
        with page.asking, self._changed:
            job = page.job = _Job(next(self._ids), what, model)
            self._changed.notify_all()
            try:
                while job.answer is None and not page.gone:
                    self._changed.wait(1.0)
                    limit_s = JOB_S + (HIDDEN_S if page.hidden else 0)
                    if page.is_silent() or time.monotonic() - job.since > limit_s:
                        self._drop(page)
            finally:
                page.job = None
        if job.answer is None:
            raise RefusedError(503, "the page has left, or took too long")
        if "error" in job.answer:
            raise RefusedError(404 if job.answer.get("unknown") is True else 422, _text(job.answer["error"]))
        return job.answer | {"seconds": time.monotonic() - job.since}

    def _take(self, page: Page, answer: Any) -> None:
        if not isinstance(answer, dict) or type(answer.get("job")) is not int:
            raise RefusedError(422, 'the answer does not say to which job; send {"job": id, ...}')
        if page.job is not None and page.job.id == answer["job"] and page.job.answer is None:
            page.job.answer = answer
            self._changed.notify_all()

    def _of(self, name: str, owner: str) -> Page:
        page = self._pages.get(name)
        if page is None or page.owner != owner:
            raise RefusedError(404, "this page is not known; open it again")
        return page

    def _drop_silent(self) -> None:
        for page in list(self._pages.values()):
            if page.is_silent():
                self._drop(page)

    def _drop(self, page: Page) -> None:
        page.gone = True
        self._pages.pop(page.id, None)
        self._changed.notify_all()


def read_about(message: Any) -> dict[str, str]:
    """Return processor, system and browser as a page says; RefusedError if it does not."""
    return _texts(message, _ABOUT)


def _unanswered(page: Page) -> bool:
    return page.job is not None and page.job.answer is None


def _texts(message: Any, names: tuple[str, ...]) -> dict[str, str]:
    """Return some entries of what a page says, as texts without control characters."""
    if not isinstance(message, Mapping) or not all(isinstance(message.get(name), str) for name in names):
        raise RefusedError(422, f"the page does not say {', '.join(names)}; reload it")
    return {name: _text(message[name]) for name in names}


def _text(value: Any) -> str:
    return "".join(character for character in str(value)[:_TEXT] if character.isprintable()) or "unknown"
