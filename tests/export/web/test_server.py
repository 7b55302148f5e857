import json
import random
import re
import socket
import threading
from contextlib import suppress

import pytest

from export.http_server import RefusedError
from export.web import hub
from export.web.server import ServeConfig, serve
from ofa.core.errors import DeviceError
from tests.web_pages import ABOUT, KEY, STARTED, Client, Page, WorkingPage


def raw(port, content):
    """Send bytes as they are; return the status and the rest of the answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        try:
            connection.sendall(content)
            connection.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError):
            pass  # refused while sending
        head, _, body = b"".join(iter(lambda: connection.recv(65536), b"")).partition(b"\r\n\r\n")
    return int(head.split()[1]), head, body


def request(method, path, body=None, *headers, host="127.0.0.1"):
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", "Connection: close", *headers]
    if body is not None and not any(line.startswith("Content-Length") for line in headers):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")


def test_pages_are_served_with_headers_that_keep_other_origins_out(serving):
    server = serving()
    for path, (file, kind) in server.assets.items():
        status, head, body = raw(server.port, request("GET", path))
        assert (status, body) == (200, file.read_bytes())
        assert f"Content-Type: {kind}".encode() in head
        for header in (b"Content-Security-Policy: default-src 'none'", b"Cross-Origin-Opener-Policy: same-origin"):
            assert header in head
        assert (b"unsafe-inline" in head) == (path == "/live.html")
        status, _, body = raw(server.port, request("HEAD", path))
        assert (status, body) == (200, b"")
    assert {"/measure.html", "/measure.js", "/worker.js", "/page.css", "/vendor/ort.wasm.min.mjs"} <= set(server.assets)


def test_what_a_browser_has_is_not_sent_again(serving):
    server = serving()
    for path, (file, _) in server.assets.items():
        head = raw(server.port, request("GET", path))[1]
        (tag,) = re.findall(rb'ETag: ("[^"]*")', head)
        status, head, body = raw(server.port, request("GET", path, None, f"If-None-Match: {tag.decode()}"))
        assert (status, body, b"Content-Length" in head) == (304, b"", False)
        assert raw(server.port, request("GET", path, None, 'If-None-Match: "other"'))[2] == file.read_bytes()
    client = Client(server)
    for _ in range(2):  # one connection
        assert client.ask("GET", path, None, **{"If-None-Match": tag.decode()})[0] == 304
        assert client.ask("GET", path) == (200, file.read_bytes())


def test_a_link_lets_one_browser_in_and_its_cookie_the_pages_after(serving):
    tokens = []
    server = serving(on_token=tokens.append)
    first = server.access.token
    page = Page(server)
    assert page.status == 200
    assert tokens == [server.access.token] != [first]
    assert Page(server, first).status == 403
    second = Page(server, first, cookie=page.cookie)  # the same link, in the same browser
    assert second.status == 200
    assert [one.id for one in server.hub.pages()] == [page.name, second.name]
    assert page.cookie.startswith(f"ofa-{server.port}=")
    head = raw(server.port, request("POST", "/api/join", json.dumps({"token": tokens[0], "about": ABOUT}).encode()))[1]
    assert b"; Path=/; HttpOnly; SameSite=Strict" in head


def test_a_browser_may_be_in_at_several_servers_and_have_cookies_of_others(serving):
    """Browsers send the cookies of one host to all its ports."""
    one, other = serving(), serving()
    first, second = Page(one), Page(other)
    assert first.cookie.partition("=")[0] != second.cookie.partition("=")[0]
    both = f'prefs={{"theme":"dark"}}; a b=c; {first.cookie}; =; x; {second.cookie}'
    for server, page in ((one, first), (other, second)):
        assert Client(server).ask("POST", "/api/alive", {"page": page.name}, Cookie=both)[0] == 200


def test_a_page_that_cannot_say_what_it_is_does_not_use_up_the_link(serving):
    server = serving()
    token = server.access.token
    assert Page(server, about={}).status == 422
    assert server.access.token == token
    assert Page(server, token).status == 200


def test_jobs_of_the_device_reach_a_page(serving):
    server = serving()
    page, device = WorkingPage(server, ms=0.001), Client(server)
    assert device.device("GET", "pages") == (
        200,
        {"protocol": 1, "pages": [{"name": page.name, "about": ABOUT}]},
    )
    assert device.device("POST", f"{page.name}/start", {"backend": "wasm", "threads": 1}) == (200, STARTED["about"])
    status, loaded = device.device("POST", f"{page.name}/models", b"a model")
    assert status == 200
    assert device.device("POST", f"{page.name}/runs", loaded | {"n": 2}) == (200, {"milliseconds": [0.001, 0.001]})
    assert device.device("POST", f"{page.name}/runs", {"model": "x", "n": 2})[0] == 404
    assert device.device("POST", "progress", {"done": 3, "total": 9}) == (200, {})
    assert server.hub.progress == (3, 9)
    assert Client(server).ask("POST", "/api/leave", {"page": page.name}, Cookie=page.cookie) == (200, {})
    page.thread.join()
    status, answer = device.device("POST", f"{page.name}/runs", loaded | {"n": 2})
    assert (status, answer["error"]) == (503, "the page has left")


def test_a_run_is_shown_to_those_who_are_in(serving, tmp_path):
    report = tmp_path / "report.html"
    server = serving(live=lambda: {"name": "<b>tiny</b>", "stages": []}, report=report, script=b"draw()")
    status, head, body = raw(server.port, request("GET", "/"))
    assert (status, b"live.js" in body) == (200, True)
    assert b"style-src 'self' 'unsafe-inline'" in head
    assert b"script-src 'self' 'wasm-unsafe-eval'" in head
    assert raw(server.port, request("GET", "/plotly.min.js"))[2] == b"draw()"
    client = Client(server)
    for path in ("/api/run", "/report"):
        assert client.ask("GET", path)[0] == 403
    assert client.ask("POST", "/api/enter", {"token": "x"})[0] == 403
    assert client.ask("POST", "/api/enter", {"token": server.access.token}) == (200, {})
    assert client.ask("POST", "/api/enter", {}) == (200, {})
    assert client.ask("GET", "/api/run") == (200, {"name": "<b>tiny</b>", "stages": [], "pages": []})
    Page(server, cookie=client.cookie)
    assert client.ask("GET", "/api/run")[1]["pages"] == [ABOUT | {"hidden": False}]
    assert client.ask("GET", "/report")[0] == 404
    report.write_text("<p>the report</p>")
    assert client.ask("GET", "/report") == (200, b"<p>the report</p>")


def test_without_a_run_the_first_page_measures(serving):
    server = serving()
    assert b"measure.js" in raw(server.port, request("GET", "/"))[2]
    client = Client(server)
    assert client.ask("POST", "/api/enter", {"token": server.access.token})[0] == 200
    assert client.ask("GET", "/api/run")[0] == 404
    assert client.ask("GET", "/report")[0] == client.ask("GET", "/plotly.min.js")[0] == 404


def hostile(page, other, job):
    """Yield the status that must answer a request, and a request that nobody should send."""
    cookie, good = f"Cookie: {page.cookie}", {"page": page.name}

    def post(path, said, *headers, **options):
        body = said if isinstance(said, bytes) else json.dumps(said).encode()
        return request("POST", path, body, *headers, **options)

    joining = {"token": "x", "about": ABOUT}
    for token in ("", "x", "0" * 24, "é", None, 5, [], {}, "a" * 3000):
        yield 403, post("/api/join", joining | {"token": token})
    for endpoint in ("next", "alive", "leave"):
        yield 403, post(f"/api/{endpoint}", good)
        yield 403, post(f"/api/{endpoint}", good, f"Cookie: {page.cookie.partition('=')[0]}=x")
        yield 403, post(f"/api/{endpoint}", good, "Cookie: \x00=;;;ofa")
        yield 404, post(f"/api/{endpoint}", {"page": other.name}, cookie)
        yield 404, post(f"/api/{endpoint}", {"page": "../" + page.name}, cookie)
        for said in ({}, {"page": 5}, {"page": None}, [], 5, "x", None):
            yield 422, post(f"/api/{endpoint}", said, cookie)
        for said in (b"", b"{", b"[" * 3000, b"\xff", b"nul"):
            yield 400, post(f"/api/{endpoint}", said, cookie)
        yield 413, post(f"/api/{endpoint}", b"x" * (2**20 + 1), cookie)
        yield 411, request("POST", f"/api/{endpoint}", None, cookie)
        yield 403, post(f"/api/{endpoint}", good, cookie, "Origin: https://elsewhere.example")
        yield 403, post(f"/api/{endpoint}", good, cookie, "Origin: null")
        yield 421, post(f"/api/{endpoint}", good, cookie, host="elsewhere.example")
    for answer in ("x", 5, [], {}, {"job": "1"}, {"job": None}, {"job": [1]}):
        yield 422, post("/api/next", good | {"answer": answer}, cookie)
    for about in (None, 5, [], {}, {"processor": "x"}, ABOUT | {"os": {}}):
        yield 422, post("/api/join", {"token": "", "about": about}, cookie)
    for path in (f"/api/models/{'0' * 64}?page={page.name}", f"/api/models/?page={page.name}", "/api/models/../x"):
        yield 404, request("GET", path, None, cookie)
    yield 403, request("GET", f"/api/models/{job}?page={page.name}")
    yield 404, request("GET", f"/api/models/{job}?page={other.name}", None, cookie)
    for path in ("pages", f"{page.name}/runs", "progress", f"{page.name}/models"):
        yield 401, post(f"/device/{path}", {}, cookie)
        yield 401, post(f"/device/{path}", {}, f"Authorization: Bearer {KEY[:-1]}")
        yield 401, post(f"/device/{path}", {}, f"Authorization: Bearer {page.cookie}")
    for path in (
        "/etc/passwd", "/../../etc/passwd", "/vendor/../measure.js", "/vendor/", "/vendor/%2e%2e/x", "//etc/passwd",
        "/serve.json", "/hub.py", "/.git/config", "/api/", "/api/join", "/api/jobs", "/device", "*", "/%00",
        "/measure.js/",
    ):  # fmt: skip
        yield 404, request("GET", path, None, cookie)
    yield 404, request("PUT", "/measure.js", b"x", cookie)
    yield 404, request("DELETE", "/", None, cookie)
    yield 421, request("GET", "/", host="elsewhere.example")
    yield 421, request("GET", "/", host="[::1")
    yield 404, request("GET", "//[", None)
    yield 501, request("BREW", "/")
    yield 400, b"NONSENSE\r\n\r\n"
    yield 414, b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n"
    yield 431, request("GET", "/", None, *(f"X-{i}: 1" for i in range(200)))
    rng = random.Random(0)
    for _ in range(10):
        yield 400, post("/api/next", rng.randbytes(rng.randint(1, 400)), cookie)


def test_hostile_requests_are_refused_and_the_server_goes_on(serving, monkeypatch):
    monkeypatch.setattr(hub, "_SILENT_S", 600.0)
    server = serving()
    page, other = Page(server), Page(server)
    loaded = []

    def load():
        with suppress(RefusedError):
            loaded.append(server.hub.load(page.name, b"a model"))

    waiting = threading.Thread(target=load, daemon=True)
    waiting.start()
    job = page.next_job()
    requests = list(hostile(page, other, job["model"]))
    assert len(requests) > 100
    token = server.access.token
    for status, content in requests:
        got, _, body = raw(server.port, content)
        assert got == status, (content[:200], body[:200])
        error = json.loads(body)
        assert list(error) == ["error"]
        assert error["error"].isprintable()
        assert "Traceback" not in error["error"]
        assert b"a model" not in body
    assert server.access.token == token
    assert {one.id for one in server.hub.pages()} == {page.name, other.name}
    assert (server.hub.progress, loaded) == (None, [])
    answer = {"page": page.name, "answer": {"job": job["id"]}}
    answering = threading.Thread(target=page.ask, args=("POST", "/api/next", answer), daemon=True)
    answering.start()
    waiting.join()
    server.hub.leave(page.name, server.hub.pages()[0].owner)
    answering.join()
    assert loaded == [job["model"]]


def test_slow_senders_are_not_waited_for(serving):
    server = serving(patience_s=0.3)
    for content in (b"", b"POST /api/next HT", request("POST", "/api/join", b"{", "Content-Length: 50")):
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as connection:
            connection.sendall(content)
            answer = b"".join(iter(lambda: connection.recv(65536), b""))
        assert answer == b"" or b" 408 " in answer


@pytest.mark.usefixtures("vendor")
def test_bad_options_are_refused(tmp_path):
    for port in (-1, 70_000, 1.5, True, "80"):
        with pytest.raises(DeviceError, match="serve: port"):
            ServeConfig(key=KEY, port=port)
    with pytest.raises(DeviceError, match="give --cert and --key, or neither"):
        ServeConfig(key=KEY, cert=tmp_path)
    (tmp_path / "cert.pem").write_text("not a certificate")
    with pytest.raises(DeviceError, match="are not a certificate and its key"):
        serve(ServeConfig(key=KEY, port=0, cert=tmp_path / "cert.pem", tls_key=tmp_path / "cert.pem"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(DeviceError, match=f"cannot listen on 127.0.0.1 port {port}"):
            serve(ServeConfig(key=KEY, port=port))
