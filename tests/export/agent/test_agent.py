import hashlib
import json
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import psutil
import pytest
from onnx import TensorProto, helper, numpy_helper

import export.agent.server
import export.agent.worker
from export.agent.server import AgentConfig, main, read_token, serve
from ofa.core.errors import DeviceError

TOKEN = "a-token-that-only-tests-know"
GOOD = f"Authorization: Bearer {TOKEN}"
FLOATS = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 4])


def model(*nodes, inputs=(FLOATS,), initializers=(), sparse=(), functions=(), domains=("",)):
    """An ONNX model that gives "y"."""
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    graph = helper.make_graph(nodes, "g", inputs, outputs, initializers, sparse_initializer=sparse)
    opsets = [helper.make_opsetid(domain, 1 if domain else 18) for domain in domains]
    return helper.make_model(graph, opset_imports=opsets, functions=functions, ir_version=10).SerializeToString()


def weights(*shape, name="w"):
    values = np.random.default_rng(0).standard_normal(shape, dtype=np.float32) / 100
    return numpy_helper.from_array(values, name)


def doubling(name="x"):
    return helper.make_node("Add", [name, name], ["y"])


def small(seed=0):
    """A model of its own for each seed."""
    return model(
        helper.make_node("Add", ["x", "w"], ["y"]), initializers=[numpy_helper.from_array(np.float32(seed), "w")]
    )


def slow(depth):
    """Matrix products one after the other, about 0.01 s each."""
    names = ["x", *(f"m{i}" for i in range(depth - 1)), "y"]
    nodes = [helper.make_node("MatMul", [a, "w"], [b]) for a, b in pairwise(names)]
    side = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 512, 512])
    return model(*nodes, inputs=[side], initializers=[weights(512, 512)])


def raw(port, content, whole=True):
    """Status and answer to bytes as they are; `whole`: nothing comes after them."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        try:
            connection.sendall(content)
            if whole:
                connection.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError):
            pass  # refused meanwhile
        head, _, body = b"".join(iter(lambda: connection.recv(65536), b"")).partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


def request(method, path, body=None, *headers, token=GOOD):
    lines = [f"{method} {path} HTTP/1.1", "Host: agent", *([token] if token else []), *headers]
    if body is not None and not any(line.startswith("Content-Length") for line in headers):
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode() + (body or b"")


def ask(port, method, path, body=None):
    return raw(port, request(method, path, body))


def load(port, content):
    return ask(port, "POST", "/models", content)


def run(port, name, n=1):
    return ask(port, "POST", "/runs", json.dumps({"model": name, "n": n}).encode())


def assert_it_works(port):
    status, answer = load(port, small())
    assert (status, answer) == (200, {"model": hashlib.sha256(small()).hexdigest()})
    status, answer = run(port, answer["model"], 3)
    assert (status, len(answer["milliseconds"])) == (200, 3)
    assert all(0 < ms < 1000 for ms in answer["milliseconds"])


def assert_it_ends(process):
    """Not by Ctrl-C: children of a job in the background ignore that."""
    worker = worker_of(process)
    process.terminate()
    try:
        assert process.communicate(timeout=20) == ("", "")
    finally:
        process.kill()
    assert process.returncode == 0
    assert not worker.is_running()


@pytest.fixture(scope="module")
def agent(tmp_path_factory):
    """An agent as users start it."""
    path = tmp_path_factory.mktemp("agent") / "token"
    path.write_text(TOKEN + "\n")
    limits = ["--port", "0", "--max-mib", "8", "--max-models", "3", "--max-seconds", "1"]
    command = [sys.executable, "-m", "export.agent", "--token-file", path, *limits]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        listens = process.stdout.readline()
        assert listens.startswith("the agent listens on http://127.0.0.1:")
        yield SimpleNamespace(port=int(listens.rpartition(":")[2]), process=process)
        assert_it_ends(process)


@contextmanager
def serving(**options):
    """An agent in a thread of this process."""
    server = serve(AgentConfig(TOKEN, port=0, **options))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def worker_of(process):
    (worker,) = psutil.Process(process.pid).children()
    return worker


def test_it_says_what_a_table_needs(agent):
    status, about = ask(agent.port, "GET", "/about")
    assert status == 200
    assert (about["runtime"], about["runtime_version"]) == ("onnxruntime", onnxruntime.__version__)
    assert (about["protocol"], about["threads"], about["precision"]) == (1, 1, "float32")
    assert all(about.values())


def test_models_are_loaded_run_and_forgotten(agent):
    assert_it_works(agent.port)
    assert ask(agent.port, "DELETE", "/models")[0] == 200
    assert run(agent.port, hashlib.sha256(small()).hexdigest())[0] == 404
    assert_it_works(agent.port)
    assert ask(agent.port, "DELETE", "/models") == (200, {"forgotten": 1})


def test_models_that_were_run_longest_ago_are_forgotten_first(agent):
    names = [load(agent.port, small(seed))[1]["model"] for seed in range(3)]
    assert run(agent.port, names[0])[0] == 200
    names.append(load(agent.port, small(3))[1]["model"])
    assert [run(agent.port, name)[0] for name in names] == [200, 404, 200, 200]
    wide = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 2**20])
    large = [model(doubling(), helper.make_node("Neg", ["x"], [f"z{i}"]), inputs=[wide]) for i in range(2)]
    names += [load(agent.port, content)[1]["model"] for content in large]  # 4 MiB each
    assert [run(agent.port, name)[0] for name in names] == [404, 404, 404, 404, 404, 200]


def node(operator, **attributes):
    return helper.make_node(operator, ["x"], ["y"], **attributes)


def outside(location, name="w"):
    """A tensor whose data are in a file."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    return tensor


def inside_if(operator):
    """A model with an operator in a branch."""
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    branch = helper.make_graph([operator], "branch", [], [output])
    true = numpy_helper.from_array(np.array(True), "true")
    taken = helper.make_node("If", ["true"], ["y"], then_branch=branch, else_branch=branch)
    return model(taken, initializers=[true], domains=("", "mine"))


def inside_function(operator):
    """A model with an operator in a function."""
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("mine", 1)]
    function = helper.make_function("com.microsoft", "F", ["x"], ["y"], [operator], opsets)
    return model(node("F", domain="com.microsoft"), functions=[function], domains=("", "com.microsoft", "mine"))


def endless():
    """A loop without an end."""
    shapes = {"i": TensorProto.INT64, "go": TensorProto.BOOL, "on": TensorProto.BOOL}
    info = {name: helper.make_tensor_value_info(name, kind, []) for name, kind in shapes.items()}
    body = helper.make_graph([helper.make_node("Identity", ["go"], ["on"])], "b", [info["i"], info["go"]], [info["on"]])
    true = numpy_helper.from_array(np.array(True), "true")
    return model(helper.make_node("Loop", ["", "true"], [], body=body), doubling(), initializers=[true])


def refused_models():
    """Models that ONNX Runtime or the agent do not take: what is said, and the model."""
    custom = node("Mine", domain="mine")
    plus = helper.make_node("Add", ["x", "w"], ["y"])
    indices = numpy_helper.from_array(np.array([0], dtype=np.int64), "i")
    sparse = onnx.SparseTensorProto(values=outside("../w.bin"), indices=indices, dims=[4])
    ints = helper.make_tensor_value_info("x", TensorProto.INT64, ["batch", 4])
    graph = helper.make_graph([], "g", [], [])
    reader = "ONNX Runtime cannot load"
    yield from ((reader, body) for body in (b"", model(node("Nonsense")), model(helper.make_node("Add", ["x"], ["y"]))))
    for body in (b"hello, agent", b"\x89PNG\r\n\x1a\n", b'{"model": 1}', b"\x00" * 99, b"\x3a\xff\xff\xff\xff\x7f"):
        yield "not an ONNX model", body
    yield "own format", small()[:4] + b"ORTM" + small()[8:]
    yield "domain 'mine'", model(custom, domains=("", "mine"))
    yield "domain 'mine'", inside_function(custom)
    yield "control flow", inside_if(custom)
    yield "control flow", inside_if(doubling())
    yield "control flow", endless()
    yield "control flow", model(node("Scan", body=graph, num_scan_inputs=1))
    yield "control flow", inside_function(node("Loop", body=graph))
    yield "a graph inside", model(node("BeamSearch", domain="com.microsoft", decoder=graph))
    yield "a graph inside", model(node("Relu", bodies=[graph]))
    for location in ("../../../etc/passwd", "/etc/passwd", "w.bin", "", "*/_ORT_MEM_ADDR_/*"):
        yield "external data", model(plus, initializers=[outside(location)])
    yield "external data", model(helper.make_node("Constant", [], ["w"], value=outside("/etc/passwd")), plus)
    yield "external data", model(plus, sparse=[sparse])
    yield "external data", small() + model(plus, initializers=[outside("w.bin")])  # protobuf merges the two
    yield "external data", inside_function(helper.make_node("Constant", [], ["y"], value=outside("/etc/passwd")))
    yield "only the first size", model(doubling(), inputs=[helper.make_tensor_value_info("x", 1, ["batch", "side"])])
    yield "only the first size", model(doubling(), inputs=[helper.make_tensor_value_info("x", 1, [1, 0])])
    yield "is a tensor(int64)", model(helper.make_node("Cast", ["x"], ["y"], to=1), inputs=[ints])
    for shape in ([2**22], [2**31, 2**31], ["batch", 3, 2**40]):
        yield "bytes, more than", model(doubling(), inputs=[helper.make_tensor_value_info("x", 1, shape)])


def hostile(held):
    """Requests that nobody should send, and the status that answers each."""
    routes = [
        ("GET", "/about"),
        ("POST", "/models"),
        ("POST", "/runs"),
        ("DELETE", "/models"),
        ("GET", "/"),
        ("PUT", "/x"),
    ]
    yield from ((401, request(*route, small(), token=None)) for route in routes)
    wrong = [
        "Bearer",
        "Bearer ",
        f"Bearer {TOKEN}x",
        f"Bearer {TOKEN[:-1]}",
        f"bearer {TOKEN}",
        f"Basic {TOKEN}",
        TOKEN,
    ]
    yield from ((401, request("GET", "/about", token=f"Authorization: {value}")) for value in [*wrong, "Bearer é\x01"])
    yield from ((401, request("POST", "/models", b"", f"Content-Length: {n}", token=None)) for n in ("5", "x", 10**20))
    yield from ((400, request("POST", "/models", small()[:n], "Content-Length: 200")) for n in (0, 1, 90))
    yield 400, request("POST", "/runs", b"{", "Content-Length: 4000")
    lengths = ["", "x", "-1", "+1", "1.5", "1e3", "0x10", "1, 1", "٣", "1\r\nContent-Length: 2"]
    yield from ((400, request("POST", "/models", b"x", f"Content-Length: {n}")) for n in lengths)
    yield from (
        (413, request("POST", "/models", b"x", f"Content-Length: {n}")) for n in (2**23 + 1, 10**15, "9" * 5000)
    )
    yield from ((413, request("POST", "/runs", b"x" * n)) for n in (4097, 300_000))
    yield from ((411, request("POST", path)) for path in ("/models", "/runs"))
    yield 411, request("POST", "/models", None, "Transfer-Encoding: chunked") + b"5\r\nhello\r\n0\r\n\r\n"
    yield 411, request("POST", "/models", b"5\r\nhello\r\n0\r\n\r\n", "Transfer-Encoding: chunked")
    yield from ((422, request("POST", "/models", body)) for _, body in refused_models())
    for n in (0, -1, 10_001, 10**100, -(10**100), 2.5, "5", True, None, [1], {}, float("nan"), float("inf")):
        yield 422, request("POST", "/runs", json.dumps({"model": held, "n": n}).encode())
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
        yield 422, request("POST", "/runs", json.dumps(asked).encode())
    for name in ("", "0" * 64, "../../etc/passwd", held[:-1], "\ud800"):
        yield 404, request("POST", "/runs", json.dumps({"model": name, "n": 1}).encode())
    yield from (
        (400, request("POST", "/runs", body)) for body in (b"", b"{", b"[" * 4000, b"\xff", b"{'n': 1}", b"nul")
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
    yield from ((404, request("GET", path)) for path in paths)
    methods = [("PUT", "/models"), ("DELETE", "/about"), ("GET", "/runs"), ("PATCH", "/runs"), ("POST", "/about")]
    yield from ((404, request(*route, b"{}")) for route in methods)
    yield from ((501, request(method, "/about")) for method in ("BREW", "OPTIONS", "about"))
    yield from (
        (400, line) for line in (b"NONSENSE\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", b"GET / HTTP/x\r\n\r\n")
    )
    yield 505, b"GET /about HTTP/9.9\r\n\r\n"
    yield 414, b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n"
    yield 431, request("GET", "/about", None, *(f"X-{i}: 1" for i in range(200)))
    rng = random.Random(0)
    yield from ((422, request("POST", "/models", rng.randbytes(rng.randint(1, 400)))) for _ in range(30))
    yield from ((422, request("POST", "/models", slow(2)[: rng.randint(1, 10_000)])) for _ in range(10))


def test_hostile_requests_are_answered_and_the_agent_goes_on(agent):
    held = load(agent.port, small())[1]["model"]
    requests = list(hostile(held))
    assert len(requests) > 150
    for status, content in requests:
        got, answer = raw(agent.port, content)
        assert (got, list(answer)) == (status, ["error"]), (content[:200], answer)
        assert "Traceback" not in answer["error"]
        assert answer["error"].isprintable()
    assert run(agent.port, held)[0] == 200  # the worker is the same
    rng = random.Random(1)
    for _ in range(30):  # changed anywhere, a model may still be one
        content = bytearray(model(doubling(), node("Relu", name="r"), initializers=[weights(2)]))
        for _ in range(rng.randint(1, 4)):
            content[rng.randrange(len(content))] = rng.randrange(256)
        assert load(agent.port, bytes(content))[0] in (200, 422)
    assert agent.process.poll() is None
    assert_it_works(agent.port)


def test_a_refused_model_is_told_why(agent):
    for message, content in refused_models():
        status, answer = load(agent.port, content)
        assert (status, message in answer["error"]) == (422, True), (message, answer)


def test_operators_of_allowed_domains_run_also_in_functions(agent):
    gelu = model(node("Gelu", domain="com.microsoft"), domains=("", "com.microsoft"))
    for content in (gelu, inside_function(helper.make_node("Add", ["x", "x"], ["y"]))):
        assert run(agent.port, load(agent.port, content)[1]["model"])[0] == 200


def test_runs_that_take_too_long_are_cut_off_and_the_model_is_kept(agent):
    many = load(agent.port, slow(1))[1]["model"]
    deep = load(agent.port, slow(2000))[1]["model"]
    for name, n in ((many, 10_000), (deep, 1)):
        status, answer = run(agent.port, name, n)
        assert (status, answer["error"].split(";")[0]) == (422, "that took more than 1 s")
    assert run(agent.port, many)[0] == 200


def test_what_does_not_end_is_killed_with_the_worker(agent):
    held = load(agent.port, small())[1]["model"]
    worker = worker_of(agent.process)
    worker.send_signal(signal.SIGSTOP)  # as one operator that computes for hours
    status, answer = run(agent.port, held)
    assert (status, answer["error"].split(";")[0]) == (422, "that took more than 1 s")
    assert not worker.is_running()
    assert run(agent.port, held)[0] == 404
    assert_it_works(agent.port)


def test_a_runtime_that_crashes_is_started_again(agent):
    held = load(agent.port, slow(2000))[1]["model"]
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run, agent.port, held)
        time.sleep(0.3)
        worker_of(agent.process).kill()
        status, answer = running.result(timeout=20)
    assert (status, answer["error"]) == (503, "ONNX Runtime ended, all models are forgotten; send them again")
    assert run(agent.port, held)[0] == 404
    assert_it_works(agent.port)
    worker = worker_of(agent.process)
    worker.kill()
    deadline = time.monotonic() + 20
    while (worker.status() != psutil.STATUS_ZOMBIE or worker.num_threads() > 1) and time.monotonic() < deadline:
        time.sleep(0.001)
    assert_it_works(agent.port)


def test_one_request_is_measured_at_a_time(monkeypatch):
    exchange, at_work, most = export.agent.worker._exchange, [], []

    def watched(*arguments):
        at_work.append(1)
        most.append(len(at_work))
        time.sleep(0.02)
        answer = exchange(*arguments)
        at_work.pop()
        return answer

    monkeypatch.setattr("export.agent.worker._exchange", watched)
    with serving() as server:
        port = server.server_address[1]
        names = [load(port, small(seed))[1]["model"] for seed in range(2)]
        with ThreadPoolExecutor(6) as pool:
            assert [status for status, _ in pool.map(lambda i: run(port, names[i % 2]), range(12))] == [200] * 12
    assert (len(most), max(most)) == (15, 1)


def test_slow_senders_are_not_waited_for():
    with serving(patience_s=0.3) as server:
        port = server.server_address[1]
        status, answer = raw(port, request("POST", "/models", b"half", "Content-Length: 8"), whole=False)
        assert (status, answer["error"].split(";")[0]) == (408, "the body did not arrive in time")
        for content in (b"", b"GET /ab", request("GET", "/about")[:-2]):
            with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
                connection.sendall(content)
                assert connection.recv(1) == b""
        assert_it_works(port)


def test_too_many_connections_are_closed_and_the_next_are_served():
    with serving(patience_s=1) as server:
        address = server.server_address
        waiting = [socket.create_connection(address, timeout=20) for _ in range(40)]
        with socket.create_connection(address, timeout=20) as connection:
            assert connection.recv(1) == b""
        for connection in waiting:
            assert connection.recv(1) == b""
            connection.close()
        assert_it_works(address[1])


def test_the_answer_to_a_body_that_is_too_large_arrives_while_it_is_sent(agent):
    body = bytes(20 * 2**20)
    assert raw(agent.port, request("POST", "/models", body), whole=False)[0] == 413


def test_the_first_run_is_not_timed(monkeypatch):
    calls, ticks = [], iter(range(100))
    held = SimpleNamespace(session=SimpleNamespace(run=lambda *_: calls.append(1)), feed={})
    monkeypatch.setattr("export.agent.worker.time.perf_counter_ns", lambda: next(ticks) * 1_000_000)
    assert export.agent.worker._times(held, 4, SimpleNamespace(terminate=False)) == [1.0] * 4
    assert len(calls) == 5


def test_it_needs_neither_torch_nor_onnx():
    program = """
import sys
for name in ("torch", "torchvision", "timm", "onnx", "typer", "pydantic", "sklearn", "scipy", "PIL", "ofa.devices"):
    sys.modules[name] = None
from export.agent.server import AgentConfig, serve
with serve(AgentConfig("x" * 16, port=0)) as server:
    print(server.about["protocol"])
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (result.stdout, result.stderr) == ("1\n", "")


@pytest.mark.parametrize("content", [b"", b"fifteen-letters", b"a token with spaces", b"\xff" * 20, "é".encode() * 20])
def test_tokens_that_can_be_guessed_or_not_be_sent(tmp_path, content):
    path = tmp_path / "token"
    path.write_bytes(content)
    with pytest.raises(DeviceError, match="token"):
        read_token(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--token-file", "missing"], "missing cannot be read"),
        (["--threads", "0"], "threads = 0 is not allowed; choose from 1 to"),
        (["--port", "65536"], "port = 65536 is not allowed"),
        (["--max-mib", "0"], "max_mib = 0 is not allowed"),
        (["--max-seconds", "nan"], "max_seconds = nan is not allowed"),
        (["--cert", "cert.pem"], "TLS needs both a certificate and a key"),
        (["--cert", "cert.pem", "--key", "key.pem"], "are no certificate and its key"),
        (["--host", "256.0.0.1"], "cannot listen on 256.0.0.1"),
    ],
)
def test_wrong_options(tmp_path, capsys, options, message):
    path = tmp_path / "token"
    path.write_text(TOKEN)
    assert main(["--token-file", str(path), "--port", "0", *options]) == 2
    assert message in capsys.readouterr().err


def test_a_token_is_not_shown(capsys):
    assert TOKEN not in repr(AgentConfig(TOKEN))
    with pytest.raises(SystemExit):
        main(["--token", TOKEN])
    assert "--token-file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("processor : 0\nmodel name : Fast 3\n", "Fast 3"),
        ("CPU part : 0xd05\nCPU part : 0xd0a\nCPU part : 0xd05\nHardware : Phone 7\n", "Phone 7"),
        ("CPU part : 0xd05\nCPU part : 0xd0a\nCPU part : 0xd05\n", "aarch64 0xd05 0xd0a"),
        (None, "aarch64"),
    ],
)
def test_processors_are_named_on_phones_too(monkeypatch, tmp_path, text, name):
    path = tmp_path / "cpuinfo"
    if text is not None:
        path.write_text(text)
    monkeypatch.setattr("export.agent.server.Path", lambda _: Path(path))
    monkeypatch.setattr("export.agent.server.platform.processor", lambda: "")
    monkeypatch.setattr("export.agent.server.platform.machine", lambda: "aarch64")
    assert export.agent.server.processor() == name
