"""The measurements behind a latency table, and their JSON file, whose format is in `latency_luts/README.md`."""

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from ofa.core.errors import FamilyError, OfaError, TableError
from ofa.core.files import read_json, write_json
from ofa.core.plugins import plugin_folders
from ofa.devices.device import Timing
from ofa.space.arch import Arch, Rows
from ofa.supernet.family import Family
from ofa.supernet.registry import create_family

FORMAT, VERSION = "ofa-latency-table", 2


class OtherDevice(NamedTuple):
    """What is known of another device: its description, and the latencies in ms of whole networks of the family."""

    device: Mapping[str, Any]
    networks: Mapping[Arch, float]


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Measurements:
    """Latencies that were measured for one family on one device, of one run of its batch.

    Attributes:
        measured: family of the measured blocks and networks.
        family: family whose latencies are of interest: the measured one, or the same at other resolutions.
        device: `Device.description`, which bursts count (`bursts`), and how long the reference took (`reference_ms`).
        date: date and time, ISO 8601.
        overhead: timing of a network that does nothing.
        rows: timing of each block alone, by its text and input size in pixels; empty for a family without blocks.
        networks: timings of the whole networks that predictions are fitted to.
        checks: timings of other networks, from the same rounds, that predictions are never fitted to.
        others: other devices, if predictions start from what they have in common with this one.

    Raises:
        TableError: there is neither a block nor a network, or a network takes 0 ms.
    """

    measured: Family
    family: Family
    device: Mapping[str, Any]
    date: str
    overhead: Timing
    rows: Mapping[tuple[str, int], Timing]
    networks: Mapping[Arch, Timing]
    checks: Mapping[Arch, Timing]
    others: Sequence[OtherDevice] = ()

    def __post_init__(self) -> None:
        networks = (*self.networks.values(), *self.checks.values())
        if not (self.rows or self.networks) or any(timing.median_ms == 0 for timing in networks):
            raise TableError(f"{self!r} has nothing to predict from, or a network of 0 ms; profile the device again")

    def __repr__(self) -> str:
        counts = f"{len(self.rows)} blocks, {len(self.networks)} networks, {len(self.checks)} checks"
        return f"{type(self).__name__}({self.measured.name!r} on {self.device.get('device')!r}: {counts})"

    def latency_ms(self) -> dict[Arch, float]:
        """Return the latencies in ms of all networks, checks included."""
        return {arch: timing.median_ms for arch, timing in {**self.networks, **self.checks}.items()}

    def save(self, path: Path) -> None:
        """Write the measurements as JSON, whole or not at all."""
        content = {
            "format": FORMAT,
            "version": VERSION,
            "family": {"name": self.measured.name, "options": dict(self.measured.options)},
            "device": dict(self.device),
            "date": self.date,
            "overhead": asdict(self.overhead),
            "rows": [{"block": block, "size": size} | asdict(timing) for (block, size), timing in self.rows.items()],
            "networks": [{"arch": dict(arch)} | asdict(timing) for arch, timing in self.networks.items()],
            "checks": [{"arch": dict(arch)} | asdict(timing) for arch, timing in self.checks.items()],
        }
        if self.others:
            content["others"] = [
                {
                    "device": dict(other.device),
                    "networks": [{"arch": dict(arch), "median_ms": ms} for arch, ms in other.networks.items()],
                }
                for other in self.others
            ]
        write_json(path, content)

    @classmethod
    def load(cls, path: str | Path, family: Family | None = None) -> Self:
        """Read what `save` wrote; `~` in the path is expanded.

        The family is the one whose latencies are of interest; by default the measured one, which is created.

        Raises:
            TableError: the file is unreadable, has another format or version, or belongs to another family or one that
                cannot be created.
        """
        path = Path(path).expanduser()
        with _readable(path):
            content = read_json(path)
            if (content["format"], content["version"]) != (FORMAT, VERSION):
                raise TableError(f"it is {content['format']} version {content['version']}, not {FORMAT} {VERSION}")
            name, options = str(content["family"]["name"]), dict(content["family"]["options"])
        measured = _measured_family(path, name, options, family)
        with _readable(path):
            arch = measured.space.arch
            return cls(
                measured=measured,
                family=family or measured,
                device=dict(content["device"]),
                date=str(content["date"]),
                overhead=Timing(**content["overhead"]),
                rows={(str(row.pop("block")), int(row.pop("size"))): Timing(**row) for row in content["rows"]},
                networks={arch(entry.pop("arch")): Timing(**entry) for entry in content["networks"]},
                checks={arch(entry.pop("arch")): Timing(**entry) for entry in content["checks"]},
                others=tuple(
                    OtherDevice(
                        dict(other["device"]),
                        {arch(entry["arch"]): float(entry["median_ms"]) for entry in other["networks"]},
                    )
                    for other in content.get("others", ())
                ),
            )


def to_arrays(networks: Mapping[Arch, Timing], family: Family) -> tuple[Rows, NDArray[np.float64]]:
    """Return the rows `[n, n_choices]` and latencies in ms `[n]` of measured networks."""
    return family.space.rows(networks), np.array([timing.median_ms for timing in networks.values()])


def shipped_tables() -> dict[Path, dict[str, Any]]:
    """Return a summary of each shipped latency table by its path: the files `*/*.json` of the packages that ship some.

    Its keys are `table` (the folder), `family`, `rows` (their number), `date`, and those of the device's description.

    Raises:
        TableError: a file is not a latency table.
    """
    summaries = {}
    for path in (path for folder in plugin_folders("ofa.latency_tables") for path in sorted(folder.glob("*/*.json"))):
        with _readable(path, "reinstall its package"):
            content = read_json(path)
            summaries[path] = {
                "table": path.parent.name,
                "family": content["family"]["name"],
                "rows": len(content["rows"]),
                "date": content["date"][:10],
                "device": content["device"]["device"],
                **content["device"],
            }
    return summaries


@contextmanager
def _readable(path: Path, next_step: str = "profile the device again") -> Iterator[None]:
    """Turn whatever is wrong with a file into one TableError."""
    try:
        yield
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OfaError) as error:
        reason = str(error) if isinstance(error, OfaError) else repr(error)
        raise TableError(f"{path} is not a readable latency table ({reason}); {next_step}") from error


def _measured_family(path: Path, name: str, options: Mapping[str, Any], family: Family | None) -> Family:
    """Return the given family if its name and options are those of the file, otherwise a new one."""
    if family is not None:
        if family.name != name:
            raise TableError(f"{path} is a table of family {name!r}, not of {family.name!r}; profile the device for it")
        if json.loads(json.dumps(dict(family.options))) == options:
            return family
    try:
        return create_family(name, **options)
    except (FamilyError, TypeError, ValueError) as error:
        raise TableError(f"{path} is a table of a family that cannot be created ({error}); pass the family") from error
