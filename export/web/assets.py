"""The files of the page, and onnxruntime-web, which `make web` brings by npm. Free of torch.

`python -m export.web.assets FOLDER` copies what the page needs from a folder into which npm installed onnxruntime-web.
"""

import hashlib
import shutil
import sys
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from ofa.core.errors import DeviceError
from ofa.core.files import read_json, write_json

_PAGE = Path(__file__).parent / "page"
VENDOR = Path(__file__).parent / "vendor"
_RECORD = "package.json"
_RUNTIME = (
    "ort.wasm.min.mjs",
    "ort-wasm-simd-threaded.mjs",
    "ort-wasm-simd-threaded.wasm",
    "ort.webgpu.min.mjs",
    "ort-wasm-simd-threaded.asyncify.mjs",
    "ort-wasm-simd-threaded.asyncify.wasm",
)
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
}


def runtime_files(names: Sequence[str]) -> dict[str, bytes]:
    """Return the content of some files of onnxruntime-web; DeviceError without it."""
    if not (VENDOR / _RECORD).is_file():
        raise DeviceError(
            "the page needs onnxruntime-web, which this installation lacks; with npm, run `make web` in a checkout, or "
            "install a wheel that was built after it"
        )
    return {name: (VENDOR / name).read_bytes() for name in names}


def style() -> dict[str, bytes]:
    """Return the style of all pages and their icon, by file name."""
    return {
        "page.css": files("ofa.report").joinpath("page.css").read_bytes(),
        "icon.svg": (_PAGE / "icon.svg").read_bytes(),
    }


def assets() -> dict[str, tuple[Path, str]]:
    """Return the file and the media type of each path that the server answers; DeviceError without onnxruntime-web."""
    runtime_files(())
    paths = {f"/{path.name}": path for path in _PAGE.iterdir()}
    paths |= {f"/vendor/{name}": VENDOR / name for name in _RUNTIME}
    paths["/page.css"] = Path(str(files("ofa.report").joinpath("page.css")))
    return {path: (file, _TYPES[file.suffix]) for path, file in paths.items() if file.suffix in _TYPES}


def copy_runtime(package: Path) -> None:
    """Copy the files of onnxruntime-web that pages load, and record its version, licence and their checksums."""
    try:
        about = read_json(package / "package.json")
        VENDOR.mkdir(exist_ok=True)
        for name in _RUNTIME:
            shutil.copyfile(package / "dist" / name, VENDOR / name)
    except (OSError, ValueError) as error:
        raise DeviceError(f"{package} is not onnxruntime-web ({error}); run: make web") from error
    record = {key: about[key] for key in ("name", "version", "license")}
    checksums = {name: hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() for name in _RUNTIME}
    write_json(VENDOR / _RECORD, record | {"sha256": checksums})


if __name__ == "__main__":
    try:
        copy_runtime(Path(sys.argv[1]))
    except DeviceError as failure:
        sys.exit(f"error: {failure}")
