"""The page that measures, in a real browser."""

import json
import re
import threading
from functools import partial

import numpy as np
import pytest
from plotly.offline import get_plotlyjs
from torch import nn

import ofa
from export.devices.browser import Browser
from export.web.running import Running, announce
from export.web.server import ServeConfig, serve
from ofa.cost.latency.profile import network
from ofa.devices.device import Model
from ofa.devices.measure import MeasureConfig, measure
from ofa.report import charts
from tests.servers import answering
from tests.web_pages import KEY

pytestmark = pytest.mark.slow


@pytest.fixture
def server(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    server = serve(ServeConfig(key=KEY, port=0))
    with answering(server) as url:
        announce(Running(url, KEY))
        yield server


@pytest.fixture
def serving_run():
    """A server that shows a run, and its state."""
    stage = {"of": "run", "seconds": 0.0}
    working = {"name": "train", "state": "working", "done": 3, "total": 9, "message": "loss 1.5", "silent_s": 1.0}
    epoch = {"epoch": 1, "strategy": "full", "loss": {"largest": 2.0}, "largest_top1_percent": 40.0}
    figure = json.loads(charts.training([epoch | {"smallest_top1_percent": 9.0}]).to_json())
    state = {"name": "tiny", "stages": [stage | working, stage | {"name": "fit", "state": "waiting"}], "report": False}
    state["charts"] = {"training": figure}
    config = ServeConfig(key=KEY, port=0, live=lambda: state, script=get_plotlyjs().encode())
    server = serve(config)
    with answering(server):
        yield server, state


def link(server):
    return f"http://127.0.0.1:{server.port}/#{server.access.token}"


def opened(context, address):
    page = context.open(address)
    page.locator("#status").filter(has_not_text=re.compile("^Connecting")).wait_for()
    return page


def status(page):
    return page.text_content("#status")


class Measuring(threading.Thread):
    """Measures models by the device, while the page's events are served by the thread of the test."""

    def __init__(self, models):
        super().__init__()
        self.models, self.timings = models, {}
        self.start()

    def run(self):
        reference = Model(partial(nn.Linear, 20, 20), (20,))
        config = MeasureConfig(min_rounds=3, max_rounds=3, burst_ms=1.0, precision_percent=1e6)
        self.timings = measure(Browser(), self.models, reference, np.random.default_rng(0), config=config)

    def wait(self, page, until=lambda: False):
        while self.is_alive() and not until():
            page.wait_for_timeout(50)


def linear(n):
    return {str(width): Model(partial(nn.Linear, width, width), (width,)) for width in range(1, n + 1)}


def test_networks_of_every_kind_are_measured_in_a_browser(server, chromium):
    page = opened(chromium, link(server))
    assert status(page) == "Connected, waiting for work"
    families = [ofa.create_family(name) for name in ("small_mobilenet_v3", "hybrid_small", "autoformer_tiny")]
    models = {family.name: network(family, family.space.smallest) for family in families}
    measuring = Measuring(models)
    measuring.wait(page)
    assert list(measuring.timings) == list(models)
    assert all(timing.median_ms > 0 for timing in measuring.timings.values())
    page.locator("#status").filter(has_text="Measured").wait_for()
    assert "onnxruntime-web 1." in page.text_content("#facts")
    assert page.faults == page.elsewhere() == []


def test_a_tab_that_is_closed_and_opened_again_goes_on_and_two_tabs_share(server, chromium):
    address = link(server)
    page, measuring = opened(chromium, address), Measuring(linear(40))
    measuring.wait(page, until=lambda: server.hub.progress is not None and server.hub.progress[0] > 400)
    page.close(run_before_unload=True)
    again = opened(chromium, address)  # the same link, in the same browser
    assert again.evaluate("location.hash") == ""
    measuring.wait(again)
    assert len(measuring.timings) == 40
    other = opened(chromium, address)
    assert len(server.hub.pages()) == 2
    sharing = Measuring(linear(30))
    sharing.wait(other)
    assert len(sharing.timings) == 30
    assert again.faults == other.faults == other.elsewhere() == []


def test_a_hidden_page_does_not_measure_until_it_is_seen_again(server, chromium):
    chromium.add_init_script(
        "window.hide = (hidden) => { Object.defineProperty(document, 'hidden', { configurable: true, value: hidden }); "
        "document.dispatchEvent(new Event('visibilitychange')); }"
    )
    page, measuring = opened(chromium, link(server)), Measuring(linear(20))
    measuring.wait(page, until=lambda: server.hub.progress is not None and server.hub.progress[0] > 16 * 21)
    page.evaluate("hide(true)")
    page.wait_for_timeout(1500)
    jobs = server.hub.pages()[0].job.id
    page.wait_for_timeout(1500)
    assert server.hub.pages()[0].job.id == jobs
    page.evaluate("hide(false)")
    measuring.wait(page)
    assert len(measuring.timings) == 20


def test_a_run_is_shown_while_it_goes_on(serving_run, chromium):
    server, state = serving_run
    page = opened(chromium, link(server))
    page.locator("#status").filter(has_text="train: 3 of 9, loss 1.5").wait_for()
    assert page.locator("#stages tbody tr").count() == 2
    state["stages"] = [stage | {"state": "finished"} for stage in state["stages"]]
    page.locator("#status").filter(has_text="Finished").wait_for()
    assert page.locator("#training svg").count() > 0
    page.get_by_text("Measure this device").click()
    page.locator("#status").filter(has_text="waiting for work").wait_for()
    assert page.faults == page.elsewhere() == []


def test_a_wrong_token_is_told_and_gets_nothing(server, chromium):
    page = opened(chromium, link(server)[:-3] + "xyz")
    page.locator("#status").filter(has_text="Not connected").wait_for()
    assert "this link was used already, or is not whole" in page.text_content("#advice")
    assert server.hub.pages() == []


def test_a_hostile_name_of_a_device_is_shown_as_text(server, chromium):
    chromium.add_init_script(
        "Object.defineProperty(navigator, 'userAgentData', {value: {platform: '<img src=x onerror=window.hit=1>', "
        "brands: [{brand: '<script>window.hit=1</script>', version: '1'}], getHighEntropyValues: async () => ({})}})"
    )
    page = opened(chromium, link(server))
    assert "<script>window.hit=1</script> 1" in page.text_content("#facts")
    assert page.evaluate("window.hit") is None
    assert page.query_selector("#facts img, #facts script") is None
    (browser,) = server.hub.pages()
    assert browser.about["os"] == "<img src=x onerror=window.hit=1>"
