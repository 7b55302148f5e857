"""The page and the runtime that make a bundle a web site; see `docs/web.md`. Free of torch."""

import hashlib
import json
from pathlib import Path

from export.web.assets import runtime_files, style

_SITE = Path(__file__).parent / "site"
_WORKER = "service-worker.js"
_PARTS = ("ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm", "package.json")
"""The files of onnxruntime-web that run models on the processor."""


def site_files() -> dict[str, bytes]:
    """Return the files of the site by name, but for the models and their manifest; DeviceError without onnxruntime-web.

    The service worker has the names of all, and a version of its own for each content, so that a new bundle replaces
    what browsers keep of an old one.
    """
    files = {path.name: path.read_bytes() for path in sorted(_SITE.iterdir()) if path.is_file()}
    files |= {f"vendor/{name}": content for name, content in runtime_files(_PARTS).items()}
    files |= style()
    return files


def service_worker(files: dict[str, bytes], manifest: bytes) -> bytes:
    """Return the service worker of a site for its files and its manifest."""
    shell = ["./", "manifest.json", *sorted(name for name in files if name != _WORKER)]
    digest = hashlib.sha256(manifest + b"".join(files[name] for name in sorted(files)))
    text = files[_WORKER].decode()
    return text.replace("$version", digest.hexdigest()[:16]).replace("$shell", json.dumps(shell)).encode()
