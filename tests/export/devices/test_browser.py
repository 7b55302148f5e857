import json
import threading
from contextlib import contextmanager
from functools import partial

import numpy as np
import pytest
from torch import nn

from export.devices import browser
from export.devices.browser import Browser
from export.web.certificate import certificate
from export.web.running import Running, announce
from ofa.core.errors import DeviceError
from ofa.devices.device import Model, OpenDevice
from ofa.devices.measure import MeasureConfig, measure
from tests.web_pages import ABOUT, KEY, WorkingPage

REFERENCE = Model(partial(nn.Linear, 20, 20), (20,))


def models(n):
    return {f"model {width}": Model(partial(nn.Linear, width, width), (width,)) for width in range(1, n + 1)}


@pytest.fixture
def server(serving, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(browser, "_LOOK_AGAIN_S", 0.02)
    server = serving()
    announce(Running(f"http://127.0.0.1:{server.port}", KEY))
    return server


@contextmanager
def opened(server, *n_jobs):
    pages = [WorkingPage(server, n) for n in n_jobs or (10**6,)]
    try:
        yield pages
    finally:
        for page in server.hub.pages():
            server.hub.leave(page.id, page.owner)
        for page in pages:
            page.thread.join()


def measured(device, n=6):
    config = MeasureConfig(min_rounds=2, max_rounds=2, burst_ms=0.001)
    return measure(device, models(n), REFERENCE, np.random.default_rng(0), config=config)


def test_a_page_measures_every_model(server):
    with opened(server) as (page,):
        device = Browser(threads=2)
        assert isinstance(device, OpenDevice)
        assert device.description == {
            "device": "browser",
            "runtime": "onnxruntime-web",
            "runtime_version": "1.30.0",
            **ABOUT,
            "clock": "fine",
            "backend": "wasm",
            "threads": 2,
            "precision": "float32",
            "batch": 1,
            "torch_version": device.description["torch_version"],
        }
        assert json.loads(json.dumps(device.description)) == device.description
        assert list(measured(device)) == list(models(6))
        assert page.jobs.count("load") == 7
        assert server.hub.progress == (6 * 18, 6 * 18)


def test_a_server_with_tls_is_reached_by_its_certificate(serving, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cert, key = certificate("127.0.0.1")
    server = serving(cert=cert, tls_key=key)
    announce(Running(f"https://127.0.0.1:{server.port}", KEY, str(cert)))
    assert Browser(wait_minutes=0.01).name == "browser"
    announce(Running(f"https://127.0.0.1:{server.port}", KEY))
    with pytest.raises(DeviceError, match="certificate"):
        Browser()


def test_two_pages_share_the_models(server):
    with opened(server, 10**6, 10**6) as pages:
        assert len(measured(Browser(pages=2))) == 6
        assert [page.jobs.count("load") for page in pages] == [4, 4]


def test_a_page_that_closes_leaves_its_models_to_the_other(server):
    with opened(server, 10**6, 9) as pages:
        assert len(measured(Browser(pages=2))) == 6
        assert pages[1].jobs.count("run") < 8


def test_the_last_page_that_closes_is_waited_for(server):
    with opened(server, 12) as (page,):
        device = Browser()
        later = []

        def reopen():
            page.thread.join()
            later.append(WorkingPage(server))

        waiting = threading.Thread(target=reopen, daemon=True)
        waiting.start()
        assert len(measured(device)) == 6
        waiting.join()
        assert later[0].jobs.count("load") >= 2


def test_a_server_that_is_started_again_is_found(server, serving):
    with opened(server, 12) as (page,):
        device, later = Browser(), []

        def start_again():
            page.thread.join()
            announce(Running("http://127.0.0.1:9", KEY))  # nobody answers there
            another = serving()
            announce(Running(f"http://127.0.0.1:{another.port}", KEY))
            later.append((another, WorkingPage(another)))

        waiting = threading.Thread(target=start_again, daemon=True)
        waiting.start()
        assert len(measured(device)) == 6
        waiting.join()
        ((another, reopened),) = later
        another.hub.leave(reopened.name, another.hub.pages()[0].owner)
        reopened.thread.join()


def test_what_a_page_cannot_do_is_told_at_once(server, monkeypatch):
    monkeypatch.setattr(WorkingPage, "start", lambda *_: {"error": "this browser has no WebGPU; use the backend wasm"})
    with opened(server), pytest.raises(DeviceError, match=r"browser: .* refuses: this browser has no WebGPU"):
        Browser(backend="webgpu").hosts  # noqa: B018


def test_a_page_of_another_kind_is_refused(server):
    with opened(server, 12) as (page,):
        device = Browser()

        def reopen():
            page.thread.join()
            WorkingPage(server, about=ABOUT | {"browser": "Safari 19"})

        threading.Thread(target=reopen, daemon=True).start()
        with pytest.raises(DeviceError, match=r"has browser 'Chromium 156'.* has 'Safari 19'; measure on hosts"):
            measured(device)


@pytest.mark.usefixtures("server")
def test_without_a_page_the_link_is_named():
    with pytest.raises(DeviceError, match=r"0 of 1 pages were opened within 0\.01 minutes; open the link"):
        Browser(wait_minutes=0.01).hosts  # noqa: B018


def test_without_a_server_the_command_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(DeviceError, match="start it in another terminal"):
        Browser()
    announce(Running("http://127.0.0.1:9", KEY))
    with pytest.raises(DeviceError, match=r"does not answer.*start `ofa serve` in another terminal"):
        Browser()


@pytest.mark.usefixtures("server")
@pytest.mark.parametrize(
    "options",
    [{"backend": "webgl"}, {"threads": 0}, {"pages": 0}, {"wait_minutes": 0}, {"precision": "int3"}, {"batch": 0}],
)
def test_wrong_options_are_refused(options):
    (name,) = options
    with pytest.raises(DeviceError, match=f"browser: {name}"):
        Browser(**options)
