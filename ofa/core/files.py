"""Files that are written whole or not at all, and JSON that others may have written. Free of torch, for devices."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_MAX_DIGITS = 300


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` that replaces it on success and is removed on failure.

    The data reaches the disk before the rename, so neither a kill nor a full disk leaves half a file.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write an indented JSON file, whole or not at all."""
    write_text(path, json.dumps(value, indent=1) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file; OSError or ValueError if it cannot be read."""
    return parse_json(path.read_bytes())


def parse_json(text: str | bytes) -> Any:
    """Parse JSON, which may be hostile: whatever is wrong with it is a ValueError.

    So are nesting too deep for the parser, and integers that no float can hold, which fail later in arithmetic.
    """
    try:
        return json.loads(text, parse_int=_whole_number)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _whole_number(digits: str) -> int:
    if len(digits) > _MAX_DIGITS:
        raise ValueError(f"{digits[:20]}... has {len(digits)} digits")
    return int(digits)


def write_private(path: Path, content: bytes) -> None:
    """Write a file that only its user can read, whole or not at all."""
    with (
        replacing(path) as temporary,
        open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file,
    ):
        file.write(content)


def cache_folder() -> Path:
    """Return the folder for what this user's processes keep: `$XDG_CACHE_HOME/ofa`, by default `~/.cache/ofa`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "ofa"
