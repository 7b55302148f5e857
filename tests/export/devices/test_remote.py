import json
import re
import shutil
import socket
import subprocess
import sys
import warnings
from contextlib import ExitStack, contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from inspect import signature
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import yaml
from torch import nn

from export.agent.__main__ import main
from export.agent.config import AgentConfig, Limits
from export.agent.server import serve
from export.devices.ort_cpu import OrtCpu
from export.devices.remote import Agent, ForgottenModel, Remote
from export.formats.onnx import export_onnx
from export.session import session
from ofa.core.config import Config
from ofa.core.errors import DeviceError
from ofa.cost.latency.profile import network
from ofa.devices.device import Device, HostLost, Model
from ofa.devices.measure import MeasureConfig, measure
from ofa.pipeline.recipe import TargetConfig
from ofa.pipeline.recipe_file import validate
from tests.servers import answering

TOKEN = "a-token-that-only-tests-know"
REFERENCE = Model(partial(nn.Linear, 20, 20), (20,))
ABOUT = {
    "protocol": 1,
    "runtime": "onnxruntime",
    "runtime_version": "1.2.3",
    "processor": "Phone 7",
    "os": "Linux aarch64",
    "threads": 1,
    "precision": "float32",
}


def models(n):
    return {f"model {width}": Model(partial(nn.Linear, width, width), (width,)) for width in range(1, n + 1)}


@pytest.fixture(scope="module")
def token_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("remote") / "token"
    path.write_text(TOKEN)
    return str(path)


@contextmanager
def started(token_file, *options):
    """An agent, started as users start it."""
    command = [sys.executable, "-m", "export.agent", "--token-file", token_file, "--port", "0", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        listens = process.stdout.readline()
        assert listens.startswith("the agent listens on http")
        try:
            yield SimpleNamespace(url=listens.split()[-1], process=process)
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def agent(token_file):
    with started(token_file, "--max-mib", "8", "--max-models", "40", "--max-seconds", "20") as one:
        yield one


@contextmanager
def pretending(answer):
    """A server that is not quite an agent: `answer(command, path)` returns status and content."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            status, content = answer(self.command, self.path)
            self.send_response(status)
            self.end_headers()
            self.wfile.write(content if isinstance(content, bytes) else json.dumps(content).encode())

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_):
            pass

    with answering(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as url:
        yield url


def after_about(status, content):
    return lambda _, path: (200, ABOUT) if path == "/about" else (status, content)


def nobody():
    """An address at which nothing listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}"


def test_the_description_is_that_of_the_agents(agent, token_file):
    device: Device = Remote([agent.url], token_file)
    assert device.description == OrtCpu().description | {"device": "remote"}
    assert json.loads(json.dumps(device.description)) == device.description
    assert len(device.hosts) == 1


def test_every_block_of_a_family_runs_on_an_agent(agent, token_file, family):
    (host,) = Remote([agent.url], token_file).hosts
    row = family.space.row(family.space.smallest)
    for slot, block in family.blocks(row):
        if block is not None:
            times_ms = host.load(Model(block.build, block.input_shape(slot.size(28))))(3)
            assert len(times_ms) == 3
            assert all(0 < ms < 1000 for ms in times_ms)


def test_precision_and_batch_are_those_of_the_file_that_is_sent(agent, token_file, monkeypatch):
    device, bodies, ask = Remote([agent.url], token_file, precision="float16", batch=8), [], Agent.ask
    assert (device.description["precision"], device.description["batch"]) == ("float16", 8)
    monkeypatch.setattr(Agent, "ask", lambda *args: bodies.append(args[-1]) or ask(*args))
    assert len(device.hosts[0].load(REFERENCE)(2)) == 2
    assert session(bodies[0]).get_inputs()[0].shape == [8, 20]
    weights = onnx.load_model_from_string(bodies[0]).graph.initializer
    assert {weight.data_type for weight in weights} == {onnx.TensorProto.FLOAT16}


@pytest.mark.parametrize("precision", ["float16", "int8_dynamic", "int8_static"])
def test_agents_run_files_of_every_precision_of_onnx_runtime(agent, token_file, family, precision):
    device = Remote([agent.url], token_file, precision=precision)
    assert device.description["precision"] == precision
    for model in (network(family, family.space.smallest), REFERENCE):
        assert len(device.hosts[0].load(model)(2)) == 2


def test_the_file_of_a_model_is_sent_as_it_is(agent, token_file, monkeypatch, tmp_path):
    path, bodies, ask = tmp_path / "level.onnx", [], Agent.ask
    export_onnx(nn.Linear(20, 3), (20,), path)
    monkeypatch.setattr(Agent, "ask", lambda *args: bodies.append(args[-1]) or ask(*args))
    (host,) = Remote([agent.url], token_file).hosts
    host.load(Model.of(nn.Identity(), (20,), path))
    assert bodies[-1] == path.read_bytes()


def test_a_larger_model_takes_longer(agent, token_file):
    (host,) = Remote([agent.url], token_file).hosts
    small, large = (host.load(Model(partial(nn.Linear, n, n), (n,)))(20) for n in (8, 1200))
    assert np.median(large) > 5 * np.median(small)


def test_more_runs_than_one_request_may_ask_for(agent, token_file):
    (host,) = Remote([agent.url], token_file).hosts
    assert len(host.load(Model(nn.Identity, (1,)))(20_001)) == 20_001


def test_a_farm_measures_each_model_once(token_file):
    with ExitStack() as stack:
        agents = [stack.enter_context(started(token_file)) for _ in range(2)]
        device = Remote([one.url for one in agents], token_file)
        assert device.description == Remote([agents[0].url], token_file).description  # one may go on where two began
        config = MeasureConfig(min_rounds=3, max_rounds=3, precision_percent=1000, burst_ms=0.1)
        timings = measure(device, models(5), REFERENCE, np.random.default_rng(0), config=config)
    assert list(timings) == list(models(5))
    assert all(timing.repeats == 3 and timing.median_ms > 0 for timing in timings.values())


def test_an_agent_that_dies_loses_no_row(token_file):
    with ExitStack() as stack:
        agents = [stack.enter_context(started(token_file)) for _ in range(3)]
        device = Remote([one.url for one in agents], token_file)
        samples, killed = {}, []

        def kill_one(*_):
            if samples and not killed:  # after the first round of whichever host
                killed.append(max(map(len, samples.values())))
                agents[1].process.kill()
                agents[1].process.wait()

        config = MeasureConfig(min_rounds=3, max_rounds=6, precision_percent=1000, burst_ms=0.1)
        rng = np.random.default_rng(0)
        timings = measure(device, models(12), REFERENCE, rng, config=config, samples=samples, on_progress=kill_one)
        with pytest.raises(HostLost, match="does not answer"):
            device.hosts[1].load(REFERENCE)
        assert device.hosts[0].load(REFERENCE)(1)
    assert killed == [1]  # of at least 3 rounds
    assert list(timings) == list(models(12))
    assert all(timing.repeats >= 3 for timing in timings.values())


def test_all_agents_dying_is_an_error(token_file):
    with started(token_file) as one:
        device = Remote([one.url], token_file)
        one.process.kill()
        one.process.wait()
        with pytest.raises(DeviceError, match="device 'remote' is lost, 2 of 2 models are not measured"):
            measure(device, models(2), REFERENCE, np.random.default_rng(0))


def test_a_forgotten_model_is_sent_again(token_file):
    with answering(serve(AgentConfig(token=TOKEN, port=0, limits=Limits(max_models=2)))) as url:
        (host,) = Remote([url], token_file).hosts
        runners = [host.load(model) for model in models(3).values()]
        with pytest.warns(ForgottenModel, match=r"had forgotten a model; if it recurs, lower profile\.weights_mib"):
            assert len(runners[0](4)) == 4
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert len(runners[0](4)) == 4
            assert len(runners[2](4)) == 4


def test_refusals_are_errors_with_the_message_of_the_agent(agent, token_file):
    (host,) = Remote([agent.url], token_file).hosts
    with pytest.raises(DeviceError, match=r"remote: http.* refuses: .* bytes are more than 8388608; raise"):
        host.load(Model(partial(nn.Linear, 3000, 3000), (3000,)))
    with pytest.raises(DeviceError, match=r"refuses: .*the model and its inputs take .* raise the agent's --max-mib"):
        host.load(Model(nn.Identity, (3_000_000,)))
    with pytest.raises(DeviceError, match="refuses: n = 0 is not allowed"):
        host.ask("POST", "/runs", b'{"model": "", "n": 0}')
    assert host.load(REFERENCE)(1)


def test_paths_may_begin_at_the_home_directory(agent, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "token").write_text(TOKEN)
    assert Remote([agent.url], "~/token").hosts
    with pytest.raises(DeviceError, match=r"ca_file ~/cert\.pem is not a certificate"):
        Remote([agent.url], "~/token", ca_file="~/cert.pem")


def test_a_refusal_of_several_lines_becomes_one(token_file):
    with (
        pretending(after_about(422, {"error": "no\nmemory"})) as url,
        pytest.raises(DeviceError, match=r"refuses: no memory$"),
    ):
        Remote([url], token_file).hosts[0].load(REFERENCE)


def test_a_wrong_token_is_refused(agent, tmp_path):
    path = tmp_path / "token"
    path.write_text("x" * 40)
    with pytest.raises(DeviceError, match="refuses: the token is missing or wrong"):
        Remote([agent.url], str(path))


def test_agents_must_answer_and_be_of_one_kind(agent, token_file):
    with pytest.raises(DeviceError, match=r"does not answer \(.*refused.*; start the agent, or check its address"):
        Remote([agent.url, nobody()], token_file)
    for key, other in (("processor", "Phone 8"), ("threads", 2), ("runtime_version", "1.2.4")):
        with (
            pretending(after_about(200, {})) as url,
            pretending(lambda *_, key=key, other=other: (200, ABOUT | {key: other})) as another,
            pytest.raises(DeviceError, match=f"has {key} .*, http.* has {other!r}; measure on hosts of one kind"),
        ):
            Remote([url, another], token_file)


@pytest.mark.parametrize(
    ("status", "content", "message"),
    [
        (200, ABOUT | {"protocol": 2}, "speaks protocol 2, this program 1; install the same version on both"),
        (200, {"protocol": 1}, "install the same version"),
        (200, ABOUT | {"threads": True}, "install the same version"),
        (200, b"<html>", "does not answer .*start the agent"),
        (200, b"[" * 100_000, "does not answer"),
        (200, [], "fails with status 200"),
        (404, {}, "refuses: 404"),
        (500, {"error": "oh"}, "fails with status 500"),
        (302, {}, "fails with status 302"),
    ],
)
def test_a_server_that_is_no_agent_is_refused(token_file, status, content, message):
    with pretending(lambda *_: (status, content)) as url, pytest.raises(DeviceError, match=message):
        Remote([url], token_file)


@pytest.mark.parametrize(
    ("status", "content", "error"),
    [
        (503, {"error": "busy"}, HostLost),
        (500, b"", HostLost),
        (200, b"not JSON", HostLost),
        (200, {"model": "x"}, HostLost),
        (200, {}, HostLost),
        (422, {"error": "no"}, DeviceError),
        (413, {}, DeviceError),
    ],
)
def test_agents_that_fail_are_lost_and_those_that_refuse_are_not(token_file, status, content, error):
    with pretending(after_about(status, content)) as url, pytest.raises(error, match="http://127"):
        Remote([url], token_file).hosts[0].load(REFERENCE)


@pytest.mark.parametrize(
    "times", [None, [], [1.0], [1.0, "2"], [1.0, -1.0], [1.0, float("nan")], [1.0, 2.0, 3.0], [1.0, True]]
)
def test_an_answer_that_is_no_list_of_times_loses_the_agent(agent, token_file, times):
    runner = Remote([agent.url], token_file).hosts[0].load(REFERENCE)
    with pretending(after_about(200, {"milliseconds": times})) as url:
        (runner.agent,) = Remote([url], token_file).hosts
        with pytest.raises(HostLost, match="answers with something else than 2 times"):
            runner(2)


@pytest.mark.parametrize("text", ["1e999", "9" * 400, "[" * 100_000])
def test_times_that_no_float_holds_lose_the_agent(agent, token_file, text):
    runner = Remote([agent.url], token_file).hosts[0].load(REFERENCE)
    with pretending(after_about(200, f'{{"milliseconds": [{text}, 1.0]}}'.encode())) as url:
        (runner.agent,) = Remote([url], token_file).hosts
        with pytest.raises(HostLost):
            runner(2)


def test_an_agent_that_does_not_answer_is_lost(token_file):
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(DeviceError, match=r"does not answer .*timed out"),
    ):
        Remote([f"http://127.0.0.1:{silent.getsockname()[1]}"], token_file, timeout_s=0.2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"urls": []}, "give a list of agents, each once"),
        ({"urls": "http://127.0.0.1:1"}, "give a list of agents, each once"),
        ({"urls": 5}, "give a list of agents, each once"),
        ({"urls": ["http://127.0.0.1:1"] * 2}, "give a list of agents, each once"),
        *(
            ({"urls": [url]}, "is not allowed; give http://HOST:PORT")
            for url in ("", "phone:8765", "ftp://h", "http://", "http://h:x", "http://h/models", "http://me@h", 5, None)
        ),
        ({"token_file": "missing"}, "the token file missing cannot be read"),
        ({"token_file": 5}, "token_file = 5 is not allowed; give the path of a file"),
        ({"ca_file": 5}, "ca_file = 5 is not allowed; give the path of a file"),
        ({"ca_file": "missing.pem"}, r"ca_file missing\.pem is not a certificate in PEM"),
    ],
)
def test_wrong_options_are_refused(token_file, options, message):
    with pytest.raises(DeviceError, match=message):
        Remote(**{"urls": ["http://127.0.0.1:1"], "token_file": token_file} | options)


@pytest.fixture
def certificate(tmp_path):
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("the program openssl, which makes the certificate, is not installed")
    files = ["-keyout", tmp_path / "key.pem", "-out", tmp_path / "cert.pem"]
    names = ["-subj", "/CN=agent", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *files, *names]
    subprocess.run(command, check=True, capture_output=True)
    return SimpleNamespace(cert=str(tmp_path / "cert.pem"), key=str(tmp_path / "key.pem"))


def test_tls_with_a_certificate_of_ones_own(token_file, certificate):
    with started(token_file, "--cert", certificate.cert, "--key", certificate.key, "--max-mib", "1") as one:
        assert one.url.startswith("https://")
        port = int(one.url.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)):  # shakes no hands, and holds nobody up
            device = Remote([one.url], token_file, ca_file=certificate.cert)
        (host,) = device.hosts
        assert len(host.load(REFERENCE)(3)) == 3
        with pytest.raises(DeviceError, match="bytes are more than"):
            host.load(Model(partial(nn.Linear, 3000, 3000), (3000,)))
        with pytest.raises(DeviceError, match=r"does not answer .*CERTIFICATE_VERIFY_FAILED"):
            Remote([one.url], token_file)
        with pytest.raises(DeviceError, match="does not answer"):
            Remote([one.url.replace("https", "http")], token_file)
        assert host.load(REFERENCE)(1)


class TargetList(Config):
    targets: list[TargetConfig]


def test_the_page_names_the_options_of_the_agent(capsys):
    page = (Path(__file__).parents[3] / "docs" / "agent.md").read_text()
    (recipe,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    (target,) = validate(TargetList, yaml.safe_load(recipe), "agent.md").targets
    assert target.device == Remote.name
    signature(Remote).bind(**target.options)
    with pytest.raises(SystemExit):
        main(["--help"])
    flags = set(re.findall(r"--[a-z-]+", capsys.readouterr().out)) - {"--help"}
    assert flags == set(re.findall(r"--[a-z][a-z-]+", page.partition("## Measure")[0])) - {"--no-deps", "--wheel"}
