"""Clients of `ofa serve` for tests, among them a page that is played by Python."""

import json
import threading
from http.client import HTTPConnection
from typing import ClassVar

KEY = "a-key-that-only-tests-know"
ABOUT = {"processor": "Phone 7, 8 cores", "os": "Android 15", "browser": "Chromium 156"}
STARTED = {"about": {"runtime_version": "1.30.0", "clock": "fine"}}


class Client:
    """A client of a server that keeps its cookie."""

    opened: ClassVar[list] = []

    def __init__(self, server):
        self.connection = HTTPConnection("127.0.0.1", server.port, timeout=40)
        self.cookie = ""
        self.opened.append(self)

    def ask(self, method, path, said=None, **headers):
        """Return the status and the answer to a request."""
        body = said if isinstance(said, bytes | None) else json.dumps(said).encode()
        cookie = {"Cookie": self.cookie} if self.cookie else {}
        self.connection.request(method, path, body, cookie | headers)
        response = self.connection.getresponse()
        content = response.read()
        if given := response.headers.get("Set-Cookie"):
            self.cookie = given.partition(";")[0]
        is_json = response.headers["Content-Type"] == "application/json"
        return response.status, json.loads(content) if is_json else content

    def device(self, method, path, said=None):
        """Return the status and the answer to a request of the device."""
        return self.ask(method, f"/device/{path}", said, Authorization=f"Bearer {KEY}")


class Page(Client):
    """A page that is played: joins with the server's present link, or the cookie of another page."""

    def __init__(self, server, token=None, cookie="", about=ABOUT):
        super().__init__(server)
        self.cookie = cookie
        self.status, answer = self.ask(
            "POST", "/api/join", {"token": server.access.token if token is None else token, "about": about}
        )
        self.name = answer.get("page")

    def next_job(self, answer=None):
        """Return the next job after an answer."""
        status, said = self.ask("POST", "/api/next", {"page": self.name, "answer": answer})
        assert status == 200, said
        return said["job"]


class WorkingPage(Page):
    """A page that works in a thread until it has done `n_jobs`, and then closes.

    A run takes `ms`, by default a time that grows with the model: a page cannot pretend to be slow.
    """

    def __init__(self, server, n_jobs=10**6, ms=None, **options):
        super().__init__(server, **options)
        self.jobs, self._n_jobs, self._ms, self._sizes = [], n_jobs, ms, {}
        self.thread = threading.Thread(target=self._work, daemon=True)
        self.thread.start()

    def _work(self):
        answer = None
        while len(self.jobs) < self._n_jobs:
            status, message = self.ask("POST", "/api/next", {"page": self.name, "answer": answer})
            if status != 200:
                return
            job, answer = message["job"], None
            if job is not None:
                self.jobs.append(job["do"])
                answer = {"job": job["id"], **getattr(self, job["do"])(job)}
        self.ask("POST", "/api/leave", {"page": self.name})

    def start(self, job):  # noqa: ARG002
        self._sizes.clear()
        return STARTED

    def load(self, job):
        status, content = self.ask("GET", f"/api/models/{job['model']}?page={self.name}")
        assert status == 200
        assert content
        self._sizes[job["model"]] = len(content)
        return {}

    def run(self, job):
        if job["model"] not in self._sizes:
            return {"error": "not loaded", "unknown": True}
        return {"milliseconds": [self._ms or self._sizes[job["model"]] * 1e-9] * job["n"]}
