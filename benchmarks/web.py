"""A bundle as a web site: `python -m benchmarks.web RUN [TARGET]` writes docs/results/web.md.

Every test image goes through headless Chromium and through Python's runtime, at every level. Screenshots are left in
runs/web. Needs playwright and Chromium; the target has `format: web`.
"""

import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from playwright.sync_api import Page, sync_playwright

import ofa
from benchmarks.latency.chromium import OPTIONS, find_chromium
from benchmarks.page import table, write_page
from export.bundle import load_bundle
from export.session import run, session
from export.stages import raw_images
from ofa.pipeline.compare import mean_loss, read_comparison
from ofa.pipeline.run import Run

_WINDOWS = {"phone": (390, 844), "desktop": (1280, 800)}
_BATTERY = """
const battery = Object.assign(new EventTarget(), { level: 1, charging: false });
navigator.getBattery = async () => battery;
window.drain = (level) => { battery.level = level; battery.dispatchEvent(new Event("levelchange")); };
"""
_PREDICT = """
async ({ width, height, pictures }) => {
  const all = [];
  for (const data of pictures) {
    const { label, logits, latencyMs } = await runtime.predict({ width, height, data });
    all.push({ label, logits: Array.from(logits), latencyMs });
  }
  return all;
}
"""


class _Handler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextlib.contextmanager
def _served(folder: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}/"
    server.shutdown()


def main(run_folder: str, target_name: str | None = None) -> None:
    opened = ofa.open_run(run_folder)
    target = opened.target(target_name)
    folder = target.path("bundle")
    images, _ = raw_images(opened.data, limit=10**6)
    with _served(folder) as address, sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=find_chromium(), args=list(OPTIONS))
        context = chromium.new_context()
        context.add_init_script(_BATTERY)
        page = context.new_page()
        requests = list[str]()
        page.on("request", lambda request: requests.append(request.url))
        begin = time.perf_counter()
        page.goto(address)
        page.locator("#status").filter(has_text="Ready").wait_for()
        ready_s, first = time.perf_counter() - begin, list(requests)
        rows = _levels(page, folder, images)
        switched = [_drained(page, percent) for percent in (100, 60, 30, 5, 100)]
        memory_mib = _renderer_mib()
        elsewhere = [url for url in requests if not url.startswith((address, "blob:"))]
        context.set_offline(True)
        page.reload()
        page.locator("#status").filter(has_text="Ready").wait_for()
        context.set_offline(False)
        _screenshots(chromium, address)
        chromium.close()
    files = [path for url in first if (path := folder / url.removeprefix(address)).is_file()]
    first_mb, n_models = sum(path.stat().st_size for path in files) / 1e6, sum(path.suffix == ".onnx" for path in files)
    introduction = f"""
# A bundle as a web site

Made by `python -m benchmarks.web`: the target `{target.name}` of a run of the recipe `{opened.recipe.name}`, all
{len(images)} test images in headless Chromium and in Python's runtime, on this computer.
"""
    columns = "level | pixels | same labels | largest difference of a logit | ms in this browser | ms by its record"
    facts = f"""
- First visit: {first_mb:.1f} MB in {len(files)} files, of them {n_models} model; ready after {ready_s:.1f} s.
- Memory of the page after all levels were used, one after the other: {memory_mib:.0f} MiB.
- Battery, faked, at 100, 60, 30, 5 and 100 %: levels {", ".join(map(str, switched))}.
- Requests to other hosts: {len(elsewhere)}. Without a network, after the first visit: it works.
"""
    write_page("web", introduction, table(columns, rows), facts, *_matrix(opened))


def _matrix(opened: Run) -> list[str]:
    """Show what networks that were made for one target lose on another, if there are several."""
    entries, devices = read_comparison(opened), {target.name: target.config.device for target in opened.targets}
    rows = []
    for made_for in devices:
        losses = [None if name == made_for else mean_loss(entries, made_for, name) for name in devices]
        cells = ["-" if loss is None else f"{loss[0]:.2f} points, {loss[1]:+.0f} % time" for loss in losses]
        rows.append(" | ".join([f"{made_for} (`{devices[made_for]}`)", *cells]))
    if len(rows) < 2:
        return []
    intro = "Networks made for the target of a row, on the target of a column, against that target's own front:"
    return ["## Made for one, run on another", intro, table(" | ".join(["made for", *devices]), rows)]


def _levels(page: Page, folder: Path, images: list[Any]) -> list[str]:
    rows, bundle = [], load_bundle(folder)
    for i, level in enumerate(bundle.levels):
        page.evaluate("(level) => runtime.fix(level)", i)
        model = session(bundle.read_model(level))
        height, width = images[0].shape[:2]
        pictures = [image.ravel().tolist() for image in images]
        got = page.evaluate(_PREDICT, {"width": width, "height": height, "pictures": pictures})
        expected = np.concatenate([run(model, level.preprocess(image)) for image in images])
        same = [bundle.labels[row.argmax()] == one["label"] for row, one in zip(expected, got, strict=True)]
        difference = np.abs(np.array([one["logits"] for one in got]) - expected).max()
        latency_ms = np.median([one["latencyMs"] for one in got])
        rows.append(
            f"{i} | {level.preprocess.resolution} | {sum(same)} of {len(same)} | {difference:.1e} | {latency_ms:.3f} "
            f"| {level.latency_ms:.3f}"
        )
        print(rows[-1], flush=True)
    page.evaluate("() => runtime.fix(null)")
    return rows


def _drained(page: Page, percent: int) -> int:
    """Return the level that serves at a charge."""
    page.evaluate("(level) => drain(level)", percent / 100)
    return int(page.evaluate("() => runtime.update()"))


def _renderer_mib() -> float:
    """Return the memory of Chromium's largest renderer."""
    children = psutil.Process().children(recursive=True)
    return max(
        (child.memory_info().rss / 2**20 for child in children if "--type=renderer" in child.cmdline()), default=0.0
    )


def _screenshots(chromium: Any, address: str) -> None:
    for name, (width, height) in _WINDOWS.items():
        page = chromium.new_page(viewport={"width": width, "height": height})
        page.goto(address)
        page.locator("#status").filter(has_text="Ready").wait_for()
        page.screenshot(path=f"runs/web/{name}.png")


if __name__ == "__main__":
    main(*sys.argv[1:])
