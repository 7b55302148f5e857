import stat

import pytest

from export.web.running import Running, announce, find, new_key, withdraw
from ofa.core.errors import DeviceError


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_the_server_of_this_computer_is_found():
    running = Running("http://127.0.0.1:8518", new_key())
    path = announce(running)
    assert find() == running
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = Running("https://127.0.0.1:9", new_key(), "cert.pem")
    announce(again)
    assert find() == again


def test_a_server_that_ends_leaves_the_file_of_another():
    first, second = (Running(f"http://127.0.0.1:{port}", new_key()) for port in (8518, 8519))
    announce(first)
    announce(second)
    withdraw(first)
    assert find() == second
    withdraw(second)
    withdraw(second)
    with pytest.raises(DeviceError, match="no `ofa serve` runs"):
        find()


def test_without_a_server_the_next_step_is_named():
    with pytest.raises(DeviceError, match="no `ofa serve` runs on this computer; start it in another terminal"):
        find()


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"url": "x"}', '{"url": "x", "key": "y", "more": 1}'])
def test_an_unreadable_file_is_one_error(content):
    announce(Running("x", "y")).write_text(content)
    with pytest.raises(DeviceError, match=r"serve\.json cannot be read"):
        find()
