"""The site of a bundle, in a real browser."""

from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from PIL import Image

from export.bundle import load_bundle
from export.runtime import Runtime
from export.session import run, session
from tests.servers import answering

pytestmark = pytest.mark.slow

BATTERY = """
const battery = Object.assign(new EventTarget(), { level: 1, charging: false });
navigator.getBattery = async () => battery;
window.drain = (level, charging = false) => {
  Object.assign(battery, { level, charging });
  battery.dispatchEvent(new Event("levelchange"));
};
"""
PREDICT = """
async ([width, height, data]) => {
  const predicted = await runtime.predict({ width, height, data });
  return { ...predicted, logits: Array.from(predicted.logits) };
}
"""


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture
def site(levels, write, tmp_path, chromium):  # noqa: ARG001  # which skips without onnxruntime-web
    web = [replace(level, format="web") for level in levels]
    return write(tmp_path / "site", web, shared=False, site=True).folder


@pytest.fixture
def address(site):
    with answering(ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=site))) as url:
        yield f"{url}/"


def ready(chromium, address):
    page = chromium.open(address)
    page.locator("#status").filter(has_text="Ready").wait_for()
    return page


def predicted(page, picture):
    height, width = picture.shape[:2]
    return page.evaluate(PREDICT, [width, height, picture.ravel().tolist()])


def test_it_answers_as_python_does_at_every_level(chromium, address, site):
    page, rng, bundle = ready(chromium, address), np.random.default_rng(0), load_bundle(site)
    for i, level in enumerate(bundle.levels):
        page.evaluate("(level) => runtime.fix(level)", i)
        model = session(bundle.read_model(level))
        for shape in ((28, 28), (40, 33, 3), (51, 60, 4), (8, 8, 1), (90, 30, 2)):
            picture = rng.integers(0, 256, shape, dtype=np.uint8)
            expected = run(model, level.preprocess(picture))[0]
            got = predicted(page, picture)
            assert np.abs(np.array(got["logits"]) - expected).max() < 1e-4
            assert (got["label"], got["level"]) == (bundle.labels[expected.argmax()], i)
    assert page.faults == page.elsewhere() == []


def test_a_battery_that_falls_switches_levels_and_only_those_in_use_are_loaded(chromium, address):
    chromium.add_init_script(BATTERY)
    page = ready(chromium, address)

    def fetched():
        return sorted({url.rpartition("/")[2] for url in page.requested if "level-" in url})

    assert fetched() == ["level-0.onnx"]
    page.evaluate("drain(0.1)")
    page.locator("#facts").filter(has_text="2 of 3").wait_for()
    assert fetched() == ["level-0.onnx", "level-2.onnx"]
    assert predicted(page, np.zeros((28, 28), np.uint8))["level"] == 2
    page.evaluate("drain(0.9)")
    page.locator("#facts").filter(has_text="0 of 3").wait_for()
    page.evaluate("drain(0.5)")
    page.locator("#facts").filter(has_text="1 of 3").wait_for()
    page.evaluate("drain(0.5, true)")
    page.locator("#facts").filter(has_text="mains power").wait_for()
    assert page.faults == page.elsewhere() == []


def test_it_works_without_a_network_after_the_first_visit(chromium, address):
    page = ready(chromium, address)
    page.evaluate(
        "async () => { while (!(await caches.match('level-0.onnx'))) await new Promise((go) => setTimeout(go, 20)); }"
    )
    chromium.set_offline(True)
    page.reload()
    page.locator("#status").filter(has_text="Ready").wait_for()
    assert predicted(page, np.zeros((28, 28), np.uint8))["label"]


def test_chosen_pictures_are_listed_and_broken_ones_told(chromium, address, tmp_path, site):
    page, rng = ready(chromium, address), np.random.default_rng(1)
    pixels = rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    (tmp_path / "b.jpg").write_bytes(b"not a picture")
    (tmp_path / "c.txt").write_text("no picture at all")
    page.set_input_files("#pictures", [tmp_path / "a.png", tmp_path / "b.jpg", tmp_path / "c.txt"])
    page.locator("#status").filter(has_text="1 of 2 pictures were classified").wait_for()
    with Runtime(site) as runtime:
        (label,) = runtime.predict(pixels).labels
    rows = page.locator("#results tbody tr")
    assert rows.count() == 2
    assert rows.nth(1).locator("td").nth(1).text_content() == label
    assert "cannot be read" in rows.nth(0).text_content()


def test_a_bundle_that_is_not_whole_is_told(chromium, address, site):
    model = site / "level-0.onnx"
    content = model.read_bytes()
    model.write_bytes(content[:-1] + b"\x00")
    page = chromium.open(address)
    page.locator("#status").filter(has_text="level-0.onnx does not match its checksum").wait_for()
    model.unlink()
    other = chromium.new_page()
    other.goto(address)
    other.locator("#status").filter(has_text="level-0.onnx cannot be read (404)").wait_for()
