"""Models and a client for the tests of the agent; tests get them by the fixture `lab`."""

import hashlib
import json
import socket
import subprocess
import sys
from contextlib import contextmanager
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import onnx
import psutil
import pytest
from onnx import TensorProto, helper, numpy_helper

from export.agent.config import AgentConfig, Limits
from export.agent.server import serve
from tests.servers import answering

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
    """A small model, another one for each seed."""
    return model(
        helper.make_node("Add", ["x", "w"], ["y"]), initializers=[numpy_helper.from_array(np.float32(seed), "w")]
    )


def slow(depth):
    """A model of `depth` products of 2 matrices in a row, 0.002 to 0.02 s each."""
    names = ["x", *(f"m{i}" for i in range(depth - 1)), "y"]
    nodes = [helper.make_node("MatMul", [a, "w"], [b]) for a, b in pairwise(names)]
    side = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 512, 512])
    return model(*nodes, inputs=[side], initializers=[weights(512, 512)])


def node(operator, **attributes):
    return helper.make_node(operator, ["x"], ["y"], **attributes)


def outside(location, name="w"):
    """A tensor whose data are in another file."""
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[4], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    return tensor


def inside_if(operator):
    """A model with an operator in a branch of `If`."""
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    branch = helper.make_graph([operator], "branch", [], [output])
    true = numpy_helper.from_array(np.array(True), "true")
    branching = helper.make_node("If", ["true"], ["y"], then_branch=branch, else_branch=branch)
    return model(branching, initializers=[true], domains=("", "mine"))


def inside_function(operator):
    """A model with an operator in a function."""
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("mine", 1)]
    function = helper.make_function("com.microsoft", "F", ["x"], ["y"], [operator], opsets)
    return model(node("F", domain="com.microsoft"), functions=[function], domains=("", "com.microsoft", "mine"))


def endless():
    """A model with a loop that never ends."""
    shapes = {"i": TensorProto.INT64, "go": TensorProto.BOOL, "on": TensorProto.BOOL}
    info = {name: helper.make_tensor_value_info(name, kind, []) for name, kind in shapes.items()}
    body = helper.make_graph([helper.make_node("Identity", ["go"], ["on"])], "b", [info["i"], info["go"]], [info["on"]])
    true = numpy_helper.from_array(np.array(True), "true")
    return model(helper.make_node("Loop", ["", "true"], [], body=body), doubling(), initializers=[true])


def refused_models():
    """Yield part of the message, and a model that the agent or ONNX Runtime refuses."""
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
    yield (
        "only the first may be open",
        model(doubling(), inputs=[helper.make_tensor_value_info("x", 1, ["batch", "side"])]),
    )
    yield "only the first may be open", model(doubling(), inputs=[helper.make_tensor_value_info("x", 1, [1, 0])])
    yield "is a tensor(int64)", model(helper.make_node("Cast", ["x"], ["y"], to=1), inputs=[ints])
    for shape in ([2**22], [2**31, 2**31], ["batch", 3, 2**40]):
        yield "bytes, more than", model(doubling(), inputs=[helper.make_tensor_value_info("x", 1, shape)])


def raw(port, content, whole=True):
    """Send bytes as they are and return status and answer; `whole` closes the sending side after them."""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        try:
            connection.sendall(content)
            if whole:
                connection.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError):
            pass  # refused while sending
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


@pytest.fixture(scope="module")
def agent(tmp_path_factory):
    """An agent, started as users start it."""
    path = tmp_path_factory.mktemp("agent") / "token"
    path.write_text(TOKEN + "\n")
    limits = ["--port", "0", "--max-mib", "8", "--max-models", "3", "--max-seconds", "1"]
    command = [sys.executable, "-m", "export.agent", "--token-file", path, *limits]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        listens = process.stdout.readline()
        assert listens.startswith("the agent listens on http://127.0.0.1:")
        try:
            yield SimpleNamespace(port=int(listens.rpartition(":")[2]), process=process)
            workers = psutil.Process(process.pid).children()
            process.terminate()  # children of a job in the background ignore Ctrl-C
            assert process.communicate(timeout=20) == ("", "")
        finally:
            process.kill()
    assert process.returncode == 0
    assert not any(worker.is_running() for worker in workers)


@contextmanager
def serving(limits=None, **options):
    """Run an agent in a thread of this process."""
    server = serve(AgentConfig(token=TOKEN, port=0, limits=limits or Limits(), **options))
    with answering(server):
        yield server


def worker_of(process):
    (worker,) = psutil.Process(process.pid).children()
    return worker


_FUNCTIONS = (
    model, weights, doubling, small, slow, node, inside_function, refused_models, raw, request, ask, load, run,
    assert_it_works, serving, worker_of,
)  # fmt: skip


@pytest.fixture(scope="session", name="lab")
def _lab():
    return SimpleNamespace(**{function.__name__: function for function in _FUNCTIONS}, TOKEN=TOKEN)
