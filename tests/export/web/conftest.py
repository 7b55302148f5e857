"""A real browser, for tests that drive pages like a person would; needs Chromium, playwright and `make web`."""

import shutil

import pytest

from export.web import assets

_CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@pytest.fixture
def chromium():
    """A window of a phone's size in headless Chromium; `open` opens pages in it."""
    playwright = pytest.importorskip("playwright.sync_api")
    if _CHROMIUM is None:
        pytest.skip("needs Chromium")
    if not (assets.VENDOR / "package.json").is_file():
        pytest.skip("needs onnxruntime-web: make web")
    with playwright.sync_playwright() as started:
        options = ["--no-sandbox", "--disable-background-networking"]
        browser = started.chromium.launch(executable_path=_CHROMIUM, args=options)
        context = browser.new_context(viewport={"width": 390, "height": 844})
        context.open = lambda address: _open(context, address)
        yield context
        browser.close()


def _open(context, address):
    """Open a page that notes what must not be: errors, refused resources, requests to other hosts."""
    page = context.new_page()
    page.faults, page.requested = [], []
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.on("console", lambda said: page.faults.append(said.text) if said.type == "error" else None)
    page.on("request", lambda request: page.requested.append(request.url))
    page.goto(address)
    host = address.partition("#")[0]
    page.elsewhere = lambda: [url for url in page.requested if not url.startswith((host, "blob:", "data:"))]
    return page
