"""Locks on folders: two processes must not write to one at the same time."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ofa.core.errors import RunError


@contextmanager
def locked(folder: Path, *, shared: bool = False) -> Iterator[None]:
    """Hold the lock of a folder; RunError if another process holds it, with its process id.

    Any number of processes can hold a `shared` lock, which keeps others from the exclusive one. The system releases
    the lock when this process ends, however it ends.
    """
    with (folder / ".lock").open("a+") as file:
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
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
