"""Clients of `ofa serve` for tests, among them a page that is played by Python."""

import json
import threading
from contextlib import contextmanager
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

    def work(self, n_jobs, ms=1.0, started=STARTED):
        """Do so many jobs: each run takes `ms`."""
        answer, models = None, set()
        for _ in range(n_jobs):
            job = self.next_job(answer)
            while job is None:
                job = self.next_job()
            done = started if job["do"] == "start" else {}
            if job["do"] == "load":
                status, content = self.ask("GET", f"/api/models/{job['model']}?page={self.name}")
                assert status == 200
                assert content
                models.add(job["model"])
            if job["do"] == "run":
                known = job["model"] in models
                done = {"milliseconds": [ms] * job["n"]} if known else {"error": "not loaded", "unknown": True}
            answer = {"job": job["id"], **done}
        self.ask("POST", "/api/next", {"page": self.name, "answer": answer})


@contextmanager
def working(page, n_jobs, **options):
    """Let a page work in a thread; its last request ends when the page leaves."""
    thread = threading.Thread(target=page.work, args=(n_jobs,), kwargs=options, daemon=True)
    thread.start()
    yield thread
