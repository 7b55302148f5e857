"""Keeping quiet what libraries in C++ write to the standard output and error."""

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

_ONE_AT_A_TIME = Lock()  # or a stream would be lost


@contextmanager
def silent() -> Iterator[None]:
    """Send to nowhere what is written to the standard output and error meanwhile, by any thread: for short moments."""
    with _ONE_AT_A_TIME:
        sys.stdout.flush()
        sys.stderr.flush()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        kept = {stream: os.dup(stream) for stream in (1, 2)}
        for stream in kept:
            os.dup2(nowhere, stream)
        try:
            yield
        finally:
            ctypes.CDLL(None).fflush(None)  # or C writes its buffer later
            for stream, copy in kept.items():
                os.dup2(copy, stream)
                os.close(copy)
            os.close(nowhere)
