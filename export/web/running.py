"""Where the server of this computer is, and the key to it: a file that only its user can read. Free of torch."""

import json
import secrets
import ssl
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from ofa.core.errors import DeviceError
from ofa.core.files import cache_folder, read_json, write_private

_FILE = "serve.json"


@dataclass(frozen=True)
class Running:
    """A server that runs on this computer.

    Attributes:
        url: at which processes of this computer reach it.
        key: what they send.
        certificate: file to trust, for https.
    """

    url: str
    key: str
    certificate: str | None = None

    def context(self) -> ssl.SSLContext | None:
        """Return what https connections to it trust: its own certificate, for whatever name; None for http."""
        if self.url.startswith("http:"):
            return None
        context = ssl.create_default_context(cafile=self.certificate)
        context.check_hostname = False
        return context


def new_key() -> str:
    """Return a key that nobody can guess."""
    return secrets.token_urlsafe(32)


def announce(running: Running) -> Path:
    """Write the file by which the device finds the server; its user alone can read it."""
    path = cache_folder() / _FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    write_private(path, json.dumps(asdict(running)).encode())
    return path


def withdraw(running: Running) -> None:
    """Remove the file of a server that ends, unless another server has written its own there."""
    with suppress(DeviceError):
        if find() == running:
            (cache_folder() / _FILE).unlink(missing_ok=True)


def find() -> Running:
    """Return the server of this computer; DeviceError if none was started."""
    path = cache_folder() / _FILE
    try:
        return Running(**read_json(path))
    except FileNotFoundError as error:
        raise DeviceError("no `ofa serve` runs on this computer; start it in another terminal") from error
    except (OSError, ValueError, TypeError) as error:
        raise DeviceError(f"{path} cannot be read ({error}); start `ofa serve` again") from error
