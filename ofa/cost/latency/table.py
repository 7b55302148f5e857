"""Latency tables: what was measured of a family on one device, and what it predicts of every arch.

A table is one JSON file; `latency_luts/README.md` describes the format. It holds the timings of all blocks, each alone,
and of a few dozen whole networks. A regression on those turns the blocks of an arch into its latency
(`ofa.cost.latency.regression`). Of a family that is not made of blocks (`Family.from_builder`), a table holds
networks only,
and a Gaussian process over their choices predicts the others (`ofa.cost.latency.gaussian_process`).
"""

from __future__ import annotations

import json
import math
import warnings
from bisect import bisect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ofa.core.errors import SpaceError, TableError
from ofa.core.files import write_json
from ofa.cost.block_table import BlockTable, in_parts
from ofa.cost.counted import params_m
from ofa.cost.latency.gaussian_process import NetworkProcess
from ofa.cost.latency.metrics import agreement
from ofa.cost.latency.regression import BlockRegression, Networks
from ofa.devices.device import Timing
from ofa.space.arch import Arch, Rows
from ofa.space.search_space import SearchSpace
from ofa.supernet.block import Block
from ofa.supernet.family import Family
from ofa.supernet.registry import create_family

FORMAT, VERSION = "ofa-latency-table", 2


Floats = NDArray[np.float64]


class InterpolatedLatency(UserWarning):
    """A latency is predicted at a resolution that was not measured."""


class Prediction(NamedTuple):
    """Latencies `[n]` in milliseconds at batch 1, and the ends of the intervals that hold 90% of such networks."""

    latency_ms: Floats
    low_ms: Floats
    high_ms: Floats


@dataclass(frozen=True)
class Measured:
    """A whole network, measured."""

    arch: Arch
    timing: Timing


@dataclass(frozen=True)
class LatencyTable:
    """What was measured of one family on one device, at batch 1.

    Attributes:
        family: whose latencies are predicted.
        measured: the family whose blocks and networks were measured: the same, or one of other resolutions.
        device: what was measured: runtime and versions, processor, threads, precision.
        date: when, ISO 8601.
        overhead: of running a network that does nothing.
        rows: `(block as text, input size in pixels)` to its timing; empty for a family that is not made of blocks.
        networks: what the prediction is fitted to.
        checks: others, measured in the same rounds, never used for the prediction.
    """

    family: Family
    measured: Family
    device: Mapping[str, Any]
    date: str
    overhead: Timing
    rows: Mapping[tuple[str, int], Timing]
    networks: tuple[Measured, ...]
    checks: tuple[Measured, ...]

    def predict(self, rows: Rows) -> Prediction:
        """Latencies of rows `[n, n_choices]`.

        Without a measured network, they are the plain sum of blocks, and how far that is off is not known. At a
        resolution that was not measured, latencies of blocks are interpolated between the measured ones,
        intervals are twice as wide, and a warning says so.

        Raises:
            TableError: a block of an arch has no row at any resolution.
        """
        if not self.rows:
            return Prediction(*self._process.predict(rows))
        if not self.networks:
            latency_ms = self.plain_sum(rows)
            return Prediction(latency_ms, np.zeros(len(rows)), np.full(len(rows), np.inf))
        found = [np.stack(self._regression.predict(self._networks(some))) for some in in_parts(rows)]
        latency_ms, low_ms, high_ms = np.concatenate([np.zeros((3, 0)), *found], axis=1)
        far = self._far(rows)
        low_ms[far], high_ms[far] = low_ms[far] ** 2 / latency_ms[far], high_ms[far] ** 2 / latency_ms[far]
        return Prediction(latency_ms, low_ms, high_ms)

    def __call__(self, rows: Rows) -> Floats:
        """Latencies `[n]` in milliseconds of rows `[n, n_choices]`, as `predict` has them, in half the time."""
        if not (self.rows and self.networks):
            return self.predict(rows).latency_ms
        self._far(rows)
        found = [self._regression.latency_ms(self._networks(some)) for some in in_parts(rows)]
        return np.concatenate([np.zeros(0), *found])

    def judge(self) -> dict[str, float]:
        """How far predictions of the checks are off, in percent, and how many of them are within their interval."""
        rows = self.measured.space.rows(check.arch for check in self.checks)
        measured_ms = np.array([check.timing.median_ms for check in self.checks])
        latency_ms, low_ms, high_ms = self._of_measured.predict(rows)
        inside = float(100 * np.mean((low_ms <= measured_ms) & (measured_ms <= high_ms)))
        return asdict(agreement(measured_ms, latency_ms)) | {"in_interval_percent": inside}

    def plain_sum(self, rows: Rows) -> Floats:
        """The overhead and each block's timing less the overhead `[n]`: the prediction without a regression."""
        return self.overhead.median_ms + self._blocks(rows)

    @property
    def _of_measured(self) -> LatencyTable:
        """The table for the family that was measured: mostly this one, whose blocks need not be counted again."""
        return self if self.family is self.measured else replace(self, family=self.measured)

    @cached_property
    def _blocks(self) -> BlockTable:
        return BlockTable(self.family, self._block_ms)

    @cached_property
    def _params_m(self) -> BlockTable:
        return params_m(self.family)

    def _far(self, rows: Rows) -> NDArray[np.bool_]:
        """Which archs are at a resolution that was not measured `[n]`; a warning says so if any are."""
        far = self._unmeasured[rows[:, self.family.space.column("resolution")]]
        if far.any():
            warnings.warn(
                f"the latency table of {self.device.get('device')!r} was measured at {list(self.measured.resolutions)} "
                "pixels: latencies at others are interpolated; profile the device for this family to be sure",
                InterpolatedLatency,
                stacklevel=3,
            )
        return far

    def _networks(self, rows: Rows) -> Networks:
        space, measured = self.family.space, list(self.measured.resolutions)
        index = rows[:, space.column("resolution")]
        resolutions = np.array(self.family.resolutions, dtype=float)
        place = np.array([measured.index(r) if r in measured else len(measured) for r in self.family.resolutions])
        value = np.where(space.active(rows), rows + 1, 0)
        n_values = 1 + max(len(choice.values) for choice in space.choices)
        choices = value + n_values * place[index][:, None]
        codes = self._blocks.codes(rows)
        blocks_ms, params_m = self._blocks.parts(rows, codes), np.nansum(self._params_m.parts(rows, codes), axis=1)
        return Networks(blocks_ms, resolutions[index], params_m, codes, choices)

    @cached_property
    def _regression(self) -> BlockRegression:
        rows, latency_ms = self._known
        known = self._of_measured._networks(rows)
        fastest = self.device.get("bursts") == "fastest"
        error = float(np.median([network.timing.error(fastest) for network in self.networks]))
        return BlockRegression.fit(known, latency_ms, self.overhead.median_ms, error if math.isfinite(error) else 0.0)

    @cached_property
    def _process(self) -> NetworkProcess:
        return NetworkProcess.fit(self.family.space, *self._known)

    @property
    def _known(self) -> tuple[Rows, Floats]:
        rows = self.measured.space.rows(network.arch for network in self.networks)
        return rows, np.array([network.timing.median_ms for network in self.networks])

    @cached_property
    def _unmeasured(self) -> NDArray[np.bool_]:
        """Of each resolution of the family."""
        return np.array([resolution not in self.measured.resolutions for resolution in self.family.resolutions])

    @cached_property
    def _sizes(self) -> dict[str, list[int]]:
        """At which sizes each block was measured, sorted."""
        found: dict[str, list[int]] = {}
        for text, size in sorted(self.rows):
            found.setdefault(text, []).append(size)
        return found

    def _block_ms(self, block: Block, size: int) -> float:
        """Of a block alone, without the overhead; linear in the number of pixels between sizes that were measured."""
        sizes = self._sizes.get(repr(block))
        if sizes is None:
            raise TableError(
                f"the latency table of {self.device.get('device')!r} has no row for {block}; "
                "profile the device for this family"
            )
        known = [max(self.rows[repr(block), s].median_ms - self.overhead.median_ms, 0.0) for s in sizes]
        if size in sizes:
            return known[sizes.index(size)]
        if len(sizes) == 1:
            return known[0] * (size / sizes[0]) ** 2
        right = min(max(bisect(sizes, size), 1), len(sizes) - 1)
        low, high = sizes[right - 1], sizes[right]
        share = (size**2 - low**2) / (high**2 - low**2)
        return max(known[right - 1] + share * (known[right] - known[right - 1]), 0.0)

    def save(self, path: Path) -> None:
        """Writes the table as JSON, whole or not at all."""
        rows = [{"block": block, "size": size} | asdict(timing) for (block, size), timing in self.rows.items()]
        content = {
            "format": FORMAT,
            "version": VERSION,
            "family": {"name": self.measured.name, "options": dict(self.measured.options)},
            "device": dict(self.device),
            "date": self.date,
            "overhead": asdict(self.overhead),
            "rows": rows,
            "networks": entries(self.networks),
            "checks": entries(self.checks),
        }
        write_json(path, content)

    @classmethod
    def load(cls, path: str | Path, family_: Family | None = None) -> LatencyTable:
        """Reads a table.

        Args:
            path: of a file that `save` wrote.
            family_: whose latencies to predict: the measured family, or that of other resolutions; by default
                the measured one is made.

        Raises:
            TableError: unreadable, of another format or version, or of another family.
        """
        path = Path(path)
        with _reading(path) as content:
            if (content["format"], content["version"]) != (FORMAT, VERSION):
                raise TableError(
                    f"{path} is {content['format']} version {content['version']}, not {FORMAT} {VERSION}; "
                    "profile the device again"
                )
            measured = _family(content["family"]["name"], content["family"]["options"], family_, path)
            rows = {(row.pop("block"), row.pop("size")): Timing(**row) for row in content["rows"]}
            return cls(
                family_ or measured,
                measured,
                content["device"],
                content["date"],
                Timing(**content["overhead"]),
                rows,
                _measured(content["networks"], measured.space),
                _measured(content["checks"], measured.space),
            )


def entries(networks: tuple[Measured, ...]) -> list[dict[str, Any]]:
    """Measured networks as JSON."""
    return [{"arch": dict(network.arch)} | asdict(network.timing) for network in networks]


def _measured(listed: list[dict[str, Any]], space: SearchSpace) -> tuple[Measured, ...]:
    return tuple(Measured(space.arch(entry.pop("arch")), Timing(**entry)) for entry in listed)


def _family(name: str, options: dict[str, Any], given: Family | None, path: Path) -> Family:
    """The family that a file names: the one given if it is that, else made."""
    if given is not None and given.name != name:
        raise TableError(
            f"{path} is a table of family {name!r}, not of {given.name!r}; profile the device for this family"
        )
    if given is not None and json.loads(json.dumps(dict(given.options))) == options:
        return given
    return create_family(name, **options)


@contextmanager
def _reading(path: Path) -> Iterator[dict[str, Any]]:
    """The content of a table's file; whatever is found wrong with it is a TableError."""
    try:
        yield json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SpaceError) as error:
        raise TableError(f"{path} is not a readable latency table ({error!r}); profile the device again") from error
