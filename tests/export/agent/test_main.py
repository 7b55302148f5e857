import subprocess
import sys
from dataclasses import fields

import pytest

import export.agent.__main__
from export.agent.__main__ import main
from export.agent.config import AgentConfig, Limits
from ofa.core.errors import DeviceError

TOKEN = "a-token-that-only-tests-know"


@pytest.fixture
def token_file(tmp_path):
    path = tmp_path / "token"
    path.write_text(TOKEN)
    return str(path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--token-file", "missing"], "missing cannot be read"),
        (["--tokenfile", "x"], "unrecognized arguments: --tokenfile x"),
        (["--port", "http"], "argument --port: invalid int value: 'http'"),
        (["--threads", "0"], "threads = 0 is not allowed; give a whole number from 1 to"),
        (["--port", "65536"], "port = 65536 is not allowed"),
        (["--max-mib", "0"], "max_mib = 0 is not allowed"),
        (["--max-seconds", "nan"], "max_seconds = nan is not allowed"),
        (["--cert", "cert.pem"], "TLS needs both a certificate and a key"),
        (["--cert", "cert.pem", "--key", "key.pem"], "are not a certificate and its key"),
        (["--host", "256.0.0.1"], "cannot listen on 256.0.0.1"),
    ],
)
def test_a_wrong_option_is_one_line_and_exit_code_2(token_file, capsys, options, message):
    assert main(["--token-file", token_file, "--port", "0", *options]) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert printed.startswith("error: ")
    assert printed.count("\n") == 1


def test_options_become_the_configuration_and_its_limits(token_file, monkeypatch):
    seen = []

    def serve(config):
        seen.append(config)
        raise DeviceError("enough")

    monkeypatch.setattr(export.agent.__main__, "serve", serve)
    assert main(["--token-file", token_file]) == 2
    assert seen.pop() == AgentConfig(token=TOKEN)
    limits = {"threads": 1, "max_mib": 7, "max_models": 8, "max_seconds": 9.5}
    assert set(limits) == {field.name for field in fields(Limits)}
    options = [text for name, value in limits.items() for text in (f"--{name.replace('_', '-')}", str(value))]
    assert main(["--token-file", token_file, "--host", "0.0.0.0", "--port", "5", *options]) == 2
    assert seen.pop() == AgentConfig(token=TOKEN, host="0.0.0.0", port=5, limits=Limits(**limits))


def test_a_token_is_no_option(capsys):
    assert main(["--token", TOKEN]) == 2
    assert capsys.readouterr().err.startswith("error: the following arguments are required: --token-file; ")


def test_it_needs_neither_torch_nor_onnx():
    program = """
import sys
for name in ("torch", "torchvision", "timm", "onnx", "typer", "pydantic", "sklearn", "scipy", "PIL", "ofa.devices"):
    sys.modules[name] = None
import export.agent.__main__
from export.agent.config import AgentConfig
from export.agent.server import serve
with serve(AgentConfig(token="x" * 16, port=0)) as server:
    print(server.about["protocol"])
"""
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (result.stdout, result.stderr) == ("1\n", "")
