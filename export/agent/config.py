"""How an agent is started: its options, their limits and its token; and what it may answer. Free of torch."""

import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard

from export.errors import MAX_SECONDS, check_number, local_path
from ofa.core.errors import DeviceError

PROTOCOL = 1
MAX_RUNS = 10_000
"""Runs that one request may ask for."""


def are_times(values: Any, n: int) -> TypeGuard[list[float]]:
    """Return whether an answer, which may be hostile, is a list of the milliseconds of `n` runs."""
    return isinstance(values, list) and len(values) == n and all(map(_is_time, values))


def _is_time(ms: Any) -> bool:
    return type(ms) in (int, float) and 0 <= ms < math.inf


@dataclass(frozen=True)
class Limits:
    """What the worker of an agent may use.

    Attributes:
        threads: of one run, at most the number of processors.
        max_mib: size of all loaded models together with their inputs, so also of each.
        max_models: number of loaded models. Beyond either, the models that were run longest ago are dropped.
        max_seconds: time for loading a model, and for the runs of one request.
    """

    threads: int = 1
    max_mib: int = 512
    max_models: int = 512
    max_seconds: float = 60.0

    def __post_init__(self) -> None:
        check_number("agent: threads", self.threads, 1, os.cpu_count() or 1, whole=True)
        check_number("agent: max_mib", self.max_mib, 1, 10**9, whole=True)
        check_number("agent: max_models", self.max_models, 1, 10**9, whole=True)
        check_number("agent: max_seconds", self.max_seconds, 0.001, MAX_SECONDS)


@dataclass(frozen=True, kw_only=True)
class AgentConfig:
    """How an agent is started; `ofa agent --help` explains most options.

    A request's head may take `patience_s` seconds; a body may take as long, and a second more for each MiB.
    """

    token: str = field(repr=False)
    limits: Limits = Limits()
    host: str = "127.0.0.1"
    port: int = 8765
    cert: Path | None = None
    key: Path | None = None
    patience_s: float = 10.0

    def __post_init__(self) -> None:
        _check_token(self.token, "the token")
        check_number("agent: port", self.port, 0, 2**16 - 1, whole=True)
        check_number("agent: patience_s", self.patience_s, 0.001, MAX_SECONDS)
        if (self.cert is None) != (self.key is None):
            raise DeviceError("agent: TLS needs both a certificate and a key; give cert and key, or neither")


def read_token(path: str | Path) -> str:
    """Return the token in a file; DeviceError if it is unreadable, too short, or does not fit into a header."""
    path = local_path(path)
    try:
        token = path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise DeviceError(f"the token file {path} cannot be read ({error}); write a token into it") from error
    _check_token(token, f"the token in {path}")
    return token


def _check_token(token: str, what: str) -> None:
    if len(token) < 16 or not all("!" <= character <= "~" for character in token):
        needed = "16 or more ASCII characters without spaces"
        raise DeviceError(f"{what} must be {needed}; make one with `openssl rand -hex 32`")
