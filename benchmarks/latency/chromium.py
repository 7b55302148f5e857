"""`ofa serve` with a page that is open in headless Chromium."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

OPTIONS = ("--no-sandbox", "--disable-background-networking")
_MORE_OPTIONS = ("--headless=new", "--no-first-run", "--mute-audio")


def find_chromium() -> str:
    """Return the program; ends this one if it is not installed."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        sys.exit("error: Chromium is not installed")
    return program


@contextmanager
def open_page() -> Iterator[None]:
    """Start the server and open its link; the device `browser` of this process finds it."""
    chromium = find_chromium()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        command = [sys.executable, "-m", "ofa", "serve", "--port", "0"]
        environment = os.environ | {"PYTHONUNBUFFERED": "1"}
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
            assert server.stdout is not None
            link = next((line.strip() for line in server.stdout if line.strip().startswith("http")), None)
            profile = str(Path(folder, "profile"))
            page = [chromium, *OPTIONS, *_MORE_OPTIONS, f"--user-data-dir={profile}", str(link)]
            with subprocess.Popen(page, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as browser:
                try:
                    yield
                finally:
                    browser.terminate()
                    server.terminate()
