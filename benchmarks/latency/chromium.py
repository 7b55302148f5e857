"""`ofa serve` with a page that is open in headless Chromium."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_OPTIONS = ("--headless=new", "--no-sandbox", "--disable-background-networking", "--no-first-run", "--mute-audio")


@contextmanager
def open_page() -> Iterator[None]:
    """Start the server and open its link; the device `browser` of this process finds it."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("error: Chromium is not installed")
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        command = [sys.executable, "-m", "ofa", "serve", "--port", "0"]
        environment = os.environ | {"PYTHONUNBUFFERED": "1"}
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
            assert server.stdout is not None
            link = next((line.strip() for line in server.stdout if line.strip().startswith("http")), None)
            profile = str(Path(folder, "profile"))
            page = [chromium, *_OPTIONS, f"--user-data-dir={profile}", str(link)]
            with subprocess.Popen(page, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as browser:
                try:
                    yield
                finally:
                    browser.terminate()
                    server.terminate()
