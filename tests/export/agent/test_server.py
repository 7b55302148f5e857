import json
import random
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import onnxruntime
import pytest

from export.agent.config import AgentConfig
from export.agent.process import WorkerProcess
from export.agent.server import serve
from export.machine import operating_system, processor
from ofa.core.errors import DeviceError


def test_it_describes_itself_as_a_table_records_it(agent, lab):
    status, about = lab.ask(agent.port, "GET", "/about")
    assert status == 200
    assert (about["runtime"], about["runtime_version"]) == ("onnxruntime", onnxruntime.__version__)
    assert (about["protocol"], about["threads"], about["precision"]) == (1, 1, "float32")
    assert (about["processor"], about["os"]) == (processor(), operating_system())


def hostile(held, lab):
    """Yield the status that must answer a request, and a request that nobody should send."""
    routes = [
        ("GET", "/about"),
        ("POST", "/models"),
        ("POST", "/runs"),
        ("DELETE", "/models"),
        ("GET", "/"),
        ("PUT", "/x"),
    ]
    yield from ((401, lab.request(*route, lab.small(), token=None)) for route in routes)
    wrong = [
        "Bearer",
        "Bearer ",
        f"Bearer {lab.TOKEN}x",
        f"Bearer {lab.TOKEN[:-1]}",
        f"bearer {lab.TOKEN}",
        f"Basic {lab.TOKEN}",
        lab.TOKEN,
    ]
    headers = [f"Authorization: {value}" for value in [*wrong, "Bearer é\x01"]]
    yield from ((401, lab.request("GET", "/about", token=header)) for header in headers)
    lengths = [f"Content-Length: {n}" for n in ("5", "x", 10**20)]
    yield from ((401, lab.request("POST", "/models", b"", length, token=None)) for length in lengths)
    yield from ((400, lab.request("POST", "/models", lab.small()[:n], "Content-Length: 200")) for n in (0, 1, 90))
    yield 400, lab.request("POST", "/runs", b"{", "Content-Length: 4000")
    lengths = ["", "x", "-1", "+1", "1.5", "1e3", "0x10", "1, 1", "٣", "1\r\nContent-Length: 2"]
    yield from ((400, lab.request("POST", "/models", b"x", f"Content-Length: {n}")) for n in lengths)
    yield from (
        (413, lab.request("POST", "/models", b"x", f"Content-Length: {n}")) for n in (2**23 + 1, 10**15, "9" * 5000)
    )
    yield from ((413, lab.request("POST", "/runs", b"x" * n)) for n in (4097, 300_000))
    yield from ((411, lab.request("POST", path)) for path in ("/models", "/runs"))
    yield 411, lab.request("POST", "/models", None, "Transfer-Encoding: chunked") + b"5\r\nhello\r\n0\r\n\r\n"
    yield 411, lab.request("POST", "/models", b"5\r\nhello\r\n0\r\n\r\n", "Transfer-Encoding: chunked")
    yield from ((422, lab.request("POST", "/models", body)) for _, body in lab.refused_models())
    for n in (0, -1, 10_001, 10**100, -(10**100), 2.5, "5", True, None, [1], {}, float("nan"), float("inf")):
        yield 422, lab.request("POST", "/runs", json.dumps({"model": held, "n": n}).encode())
    for asked in (
        [],
        5,
        None,
        "x",
        {},
        {"n": 1},
        {"model": held},
        {"model": 5, "n": 1},
        {"model": held, "n": 1, "x": 1},
    ):
        yield 422, lab.request("POST", "/runs", json.dumps(asked).encode())
    for name in ("", "0" * 64, "../../etc/passwd", held[:-1], "\ud800"):
        yield 404, lab.request("POST", "/runs", json.dumps({"model": name, "n": 1}).encode())
    yield from (
        (400, lab.request("POST", "/runs", body)) for body in (b"", b"{", b"[" * 4000, b"\xff", b"{'n': 1}", b"nul")
    )
    paths = [
        "/",
        "/abouts",
        "/about/",
        "/about?x=1",
        "/models/../about",
        "/%61bout",
        "/etc/passwd",
        "http://x/about",
        "*",
    ]
    yield from ((404, lab.request("GET", path)) for path in paths)
    methods = [("PUT", "/models"), ("DELETE", "/about"), ("GET", "/runs"), ("PATCH", "/runs"), ("POST", "/about")]
    yield from ((404, lab.request(*route, b"{}")) for route in methods)
    yield from ((501, lab.request(method, "/about")) for method in ("BREW", "OPTIONS", "about"))
    yield from (
        (400, line) for line in (b"NONSENSE\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", b"GET / HTTP/x\r\n\r\n")
    )
    yield 505, b"GET /about HTTP/9.9\r\n\r\n"
    yield 414, b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n"
    yield 431, lab.request("GET", "/about", None, *(f"X-{i}: 1" for i in range(200)))
    rng = random.Random(0)
    yield from ((422, lab.request("POST", "/models", rng.randbytes(rng.randint(1, 400)))) for _ in range(30))
    yield from ((422, lab.request("POST", "/models", lab.slow(2)[: rng.randint(1, 10_000)])) for _ in range(10))


def test_hostile_requests_are_answered_and_the_agent_goes_on(agent, lab):
    held = lab.load(agent.port, lab.small())[1]["model"]
    requests = list(hostile(held, lab))
    assert len(requests) > 150
    for status, content in requests:
        got, answer = lab.raw(agent.port, content)
        assert (got, list(answer)) == (status, ["error"]), (content[:200], answer)
        assert "Traceback" not in answer["error"]
        assert answer["error"].isprintable()
    assert lab.run(agent.port, held)[0] == 200  # the worker is the same
    rng = random.Random(1)
    for _ in range(30):  # changed anywhere, a model may still be one
        content = bytearray(lab.model(lab.doubling(), lab.node("Relu", name="r"), initializers=[lab.weights(2)]))
        for _ in range(rng.randint(1, 4)):
            content[rng.randrange(len(content))] = rng.randrange(256)
        assert lab.load(agent.port, bytes(content))[0] in (200, 422)
    assert agent.process.poll() is None
    lab.assert_it_works(agent.port)


def test_one_request_is_measured_at_a_time(monkeypatch, lab):
    exchange, at_work, most = WorkerProcess._exchange, [], []

    def watched(*arguments):
        at_work.append(1)
        most.append(len(at_work))
        time.sleep(0.02)
        answer = exchange(*arguments)
        at_work.pop()
        return answer

    monkeypatch.setattr(WorkerProcess, "_exchange", watched)
    with lab.serving() as server:
        port = server.server_address[1]
        names = [lab.load(port, lab.small(seed))[1]["model"] for seed in range(2)]
        with ThreadPoolExecutor(6) as pool:
            assert [status for status, _ in pool.map(lambda i: lab.run(port, names[i % 2]), range(12))] == [200] * 12
    assert (len(most), max(most)) == (15, 1)


def test_slow_senders_are_not_waited_for(lab):
    with lab.serving(patience_s=0.3) as server:
        port = server.server_address[1]
        status, answer = lab.raw(port, lab.request("POST", "/models", b"half", "Content-Length: 8"), whole=False)
        assert (status, answer["error"].split(";")[0]) == (408, "the body did not arrive in time")
        for content in (b"", b"GET /ab", lab.request("GET", "/about")[:-2]):
            with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
                connection.sendall(content)
                assert connection.recv(1) == b""
        lab.assert_it_works(port)


def test_too_many_connections_are_closed_and_the_next_are_served(lab):
    with lab.serving(patience_s=1) as server:
        address = server.server_address
        waiting = [socket.create_connection(address, timeout=20) for _ in range(40)]
        with socket.create_connection(address, timeout=20) as connection:
            assert connection.recv(1) == b""
        for connection in waiting:
            assert connection.recv(1) == b""
            connection.close()
        lab.assert_it_works(address[1])


def test_the_answer_to_a_body_that_is_too_large_arrives_while_it_is_sent(agent, lab):
    body = bytes(20 * 2**20)
    assert lab.raw(agent.port, lab.request("POST", "/models", body), whole=False)[0] == 413


def test_an_address_that_cannot_be_listened_on_is_refused(lab):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(DeviceError, match=rf"cannot listen on 127\.0\.0\.1 port {port} \(.*\); give another"):
            serve(AgentConfig(token=lab.TOKEN, port=port))
    with pytest.raises(DeviceError, match=r"cannot listen on 256\.0\.0\.1"):
        serve(AgentConfig(token=lab.TOKEN, host="256.0.0.1", port=0))


def test_paths_of_the_certificate_may_begin_at_the_home_directory(lab, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("cert.pem", "key.pem"):
        (tmp_path / name).write_text("not a certificate")
    with pytest.raises(DeviceError, match=r"~/cert\.pem and ~/key\.pem are not a certificate and its key \(\[SSL"):
        serve(AgentConfig(token=lab.TOKEN, port=0, cert="~/cert.pem", key="~/key.pem"))
