"""What the files of latency tables have in common; `latency_luts/README.md` describes them."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ofa.device import Timing
from ofa.errors import SpaceError, TableError
from ofa.families import Family, family
from ofa.space import Arch, SearchSpace


@dataclass(frozen=True)
class Check:
    """A whole network, measured."""

    arch: Arch
    timing: Timing


def header(format_: str, version: int, family_: Family, device: Mapping[str, Any], date: str) -> dict[str, Any]:
    """The first keys of a table's file."""
    named = {"name": family_.name, "options": dict(family_.options)}
    return {"format": format_, "version": version, "family": named, "device": dict(device), "date": date}


def entries(checks: tuple[Check, ...]) -> list[dict[str, Any]]:
    """Measured networks as JSON."""
    return [{"arch": dict(check.arch)} | asdict(check.timing) for check in checks]


def measured(entries: list[dict[str, Any]], space: SearchSpace) -> tuple[Check, ...]:
    """The measured networks that `entries` wrote."""
    return tuple(Check(space.arch(entry.pop("arch")), Timing(**entry)) for entry in entries)


def now() -> str:
    """The date of a table that is measured now."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


@contextmanager
def reading(path: Path) -> Iterator[dict[str, Any]]:
    """The content of a table's file; whatever is found wrong with it is a TableError.

    Raises:
        TableError: see there.
    """
    try:
        yield json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SpaceError) as error:
        raise TableError(f"{path} is not a readable latency table ({error!r}); profile the device again") from error


def family_of(content: dict[str, Any], path: Path, format_: str, version: int, given: Family | None) -> Family:
    """The family of a table's file: the one given, if it is of that, else made.

    Raises:
        TableError: the file is of another format or version, or of another family.
    """
    if (content["format"], content["version"]) != (format_, version):
        raise TableError(f"{path} is {content['format']} version {content['version']}, not {format_} {version}")
    name, options = content["family"]["name"], content["family"]["options"]
    if given is not None and given.name != name:
        raise TableError(
            f"{path} is a table of family {name!r}, not of {given.name!r}; profile the device for this family"
        )
    return given or family(name, **options)
