import os
import ssl
import stat
import sys
import time

import pytest

from export.web.certificate import certificate
from ofa.core.errors import DeviceError


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


def test_a_certificate_is_for_an_address_and_kept():
    cert, key = certificate("192.168.1.7")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    content = cert.read_bytes()
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert certificate("192.168.1.7") == (cert, key)
    assert cert.read_bytes() == content
    assert certificate("192.168.1.8") != (cert, key)
    old = time.time() - 301 * 24 * 3600
    os.utime(cert, (old, old))
    certificate("192.168.1.7")
    assert cert.read_bytes() != content


def test_without_the_package_the_next_step_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(DeviceError, match=r"pip install -e '\.\[serve\]', or give --cert and --key"):
        certificate("192.168.1.7")
