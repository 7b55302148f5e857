import pytest

from export.agent.config import AgentConfig, Limits, read_token
from ofa.core.errors import DeviceError

TOKEN = "a-token-that-only-tests-know"


@pytest.mark.parametrize("content", [b"", b"fifteen-letters", b"a token with spaces", b"\xff" * 20, "é".encode() * 20])
def test_tokens_that_can_be_guessed_or_do_not_fit_into_a_header_are_refused(tmp_path, content):
    path = tmp_path / "token"
    path.write_bytes(content)
    with pytest.raises(DeviceError, match="token"):
        read_token(path)
    with pytest.raises(DeviceError, match="the token must be 16 or more ASCII characters"):
        AgentConfig(token=content.decode(errors="replace"))


def test_a_token_is_read_without_the_spaces_around_it(tmp_path, monkeypatch):
    (tmp_path / "token").write_text(f"  {TOKEN}\n")
    assert read_token(tmp_path / "token") == TOKEN
    monkeypatch.setenv("HOME", str(tmp_path))
    assert read_token("~/token") == TOKEN
    with pytest.raises(DeviceError, match=rf"the token file {tmp_path}/missing cannot be read"):
        read_token("~/missing")


def test_a_token_is_not_shown():
    assert TOKEN not in repr(AgentConfig(token=TOKEN))


def test_a_certificate_needs_its_key():
    for options in ({"cert": "cert.pem"}, {"key": "key.pem"}):
        with pytest.raises(DeviceError, match="TLS needs both a certificate and a key"):
            AgentConfig(token=TOKEN, **options)


def test_threads_are_at_most_the_processors(monkeypatch):
    monkeypatch.setattr("export.agent.config.os.cpu_count", lambda: 3)
    assert Limits(threads=3).threads == 3
    with pytest.raises(DeviceError, match="agent: threads = 4 is not allowed; give a whole number from 1 to 3"):
        Limits(threads=4)
