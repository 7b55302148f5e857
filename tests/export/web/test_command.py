import re
import signal
import socket
import stat

import pytest

import export.web.command
from export.web import assets
from export.web.running import find
from export.web.server import WebServer
from ofa.core.errors import DeviceError


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def stopped(vendor, monkeypatch):  # noqa: ARG001
    """What the servers of `ofa serve` were like when they would have begun to answer; then Ctrl-C is pressed."""
    servers = []

    def stop(server, *_):
        server.access.enter(server.access.token)
        servers.append((server, find()))
        raise KeyboardInterrupt

    monkeypatch.setattr(WebServer, "serve_forever", stop)
    return servers


def test_links_are_shown_and_the_device_finds_the_server(stopped, command, tmp_path):
    code, printed, _ = command("serve", "--port", "0")
    assert code == 0
    ((server, running),) = stopped
    links = re.findall(r"http://127\.0\.0\.1:(\d+)/#([\w-]{24})\n", printed)
    assert [int(port) for port, _ in links] == [server.port] * 2
    assert links[0] != links[1] == (str(server.port), server.access.token)
    assert "A browser came in. The link for the next one:" in printed
    assert "--host 0.0.0.0 lets phones in" in printed
    assert (running.url, running.key) == (f"http://127.0.0.1:{server.port}", server.config.key)
    assert running.key not in printed
    with pytest.raises(DeviceError, match="no `ofa serve` runs"):
        find()
    assert not (tmp_path / "ofa" / "serve.json").exists()


def test_tls_has_a_certificate_of_this_address(stopped, command):
    code, printed, _ = command("serve", "--port", "0", "--tls")
    assert code == 0
    ((server, running),) = stopped
    assert server.is_secure
    assert running.url == f"https://127.0.0.1:{server.port}"
    assert stat.S_IMODE(server.config.tls_key.stat().st_mode) == 0o600
    assert "https://127.0.0.1" in printed


def test_on_all_addresses_the_link_has_one_that_others_reach(stopped, command, monkeypatch):
    monkeypatch.setattr(export.web.command, "_address", lambda host: "192.168.1.7" if host == "0.0.0.0" else host)
    code, printed, _ = command("serve", "--port", "0", "--host", "0.0.0.0")
    assert code == 0
    ((server, running),) = stopped
    assert f"http://192.168.1.7:{server.port}/#" in printed
    assert "Without --tls, others in the network can read along" in printed
    assert running.url == f"http://127.0.0.1:{server.port}"


def test_addresses():
    assert export.web.command._address("127.0.0.1") == "127.0.0.1"
    assert export.web.command._address("localhost") in ("127.0.0.1", "::1")
    assert socket.inet_aton(export.web.command._address("0.0.0.0"))
    assert export.web.command._address("no.such.host.example") == "no.such.host.example"


@pytest.mark.usefixtures("vendor")
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--port", "70000"], "serve: port = 70000 is not allowed"),
        (["--cert", "c.pem"], "give --cert and --key, or neither"),
        (["--host", "no.such.host.example"], "cannot listen on no.such.host.example"),
        (["nothing-here"], "nothing-here"),
    ],
)
def test_bad_options_are_one_line(options, message, command):
    code, _, error = command("serve", *options)
    assert code == 2
    assert message in " ".join(error.split())
    assert "Traceback" not in error


def test_without_onnxruntime_web_the_next_step_is_named(monkeypatch, tmp_path, command):
    monkeypatch.setattr(assets, "VENDOR", tmp_path / "nothing")
    code, _, error = command("serve")
    assert code == 2
    assert "run `make web` in a checkout" in " ".join(error.split())
