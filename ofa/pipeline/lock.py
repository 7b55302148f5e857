"""A lock on a run directory: two processes must not write to it at the same time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ofa.core.errors import RunError

_NAME = ".lock"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a run directory; the system releases it when this process ends, however it ends.

    Raises:
        RunError: another process holds it; the message gives its process id.
    """
    with (folder / _NAME).open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            raise RunError(
                f"process {file.read().strip() or '?'} is working on {folder}; wait until it ends or stop it, or give "
                "another directory with --run"
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield
