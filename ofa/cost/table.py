"""Latency tables: the measured latency of every block of a family on one device.

A table is one JSON file; `latency_luts/README.md` describes the format. The latency of an arch is the
overhead of a run plus, for each of its blocks, the block's latency less that overhead, because a block
measured alone pays for a whole run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ofa.block import Block
from ofa.cost import networks
from ofa.cost.networks import NetworkTable
from ofa.cost.slots import SlotSum, distinct_blocks
from ofa.cost.table_file import Check as Check
from ofa.cost.table_file import entries, family_of, header, measured, now, reading
from ofa.device import Device, Timing
from ofa.errors import TableError
from ofa.families import Family
from ofa.files import write_json
from ofa.space import Rows

FORMAT, VERSION = "ofa-latency-table", 1


@dataclass(frozen=True)
class LatencyTable:
    """Latencies of one family's blocks on one device, at batch 1.

    Attributes:
        family: whose blocks.
        device: what was measured: runtime and versions, processor, threads, precision.
        date: when, ISO 8601.
        overhead: of running a network that does nothing.
        rows: `(block as text, input size in pixels)` to its timing.
        checks: whole networks measured in the same session, never used for the prediction.
    """

    family: Family
    device: Mapping[str, Any]
    date: str
    overhead: Timing
    rows: Mapping[tuple[str, int], Timing]
    checks: tuple[Check, ...]

    def __call__(self, rows: Rows) -> NDArray[np.float64]:
        """Predicted latency in milliseconds `[n]` of rows `[n, n_choices]`.

        Raises:
            TableError: a block of an arch has no row.
        """
        return self.overhead.median_ms + self._sum(rows)

    @cached_property
    def _sum(self) -> SlotSum:
        return SlotSum(self.family, self._block_ms)

    def _block_ms(self, block: Block, size: int) -> float:
        timing = self.rows.get((repr(block), size))
        if timing is None:
            raise TableError(
                f"the latency table of {self.device.get('device')!r} has no row for {block} at {size} pixels; "
                "profile the device for this family"
            )
        return max(timing.median_ms - self.overhead.median_ms, 0.0)

    def save(self, path: Path) -> None:
        """Writes the table as JSON, whole or not at all."""
        rows = [{"block": block, "size": size} | asdict(timing) for (block, size), timing in self.rows.items()]
        content = header(FORMAT, VERSION, self.family, self.device, self.date)
        write_json(path, content | {"overhead": asdict(self.overhead), "rows": rows, "checks": entries(self.checks)})

    @classmethod
    def load(cls, path: Path, family_: Family | None = None) -> LatencyTable:
        """Reads a table.

        Args:
            path: of a file that `save` wrote.
            family_: the family it must be of; by default the one that it names is made.

        Raises:
            TableError: unreadable, of another format or version, or of another family.
        """
        with reading(path) as content:
            made = family_of(content, path, FORMAT, VERSION, family_)
            rows = {(row.pop("block"), row.pop("size")): Timing(**row) for row in content["rows"]}
            checks, overhead = measured(content["checks"], made.space), Timing(**content["overhead"])
            return cls(made, content["device"], content["date"], overhead, rows, checks)


def load_table(path: Path, family_: Family | None = None) -> LatencyTable | NetworkTable:
    """Reads a table of either kind; see `LatencyTable.load`."""
    with reading(path) as content:
        whole = content["format"] == networks.FORMAT
    return NetworkTable.load(path, family_) if whole else LatencyTable.load(path, family_)


def profile(
    family_: Family,
    device: Device,
    rng: np.random.Generator,
    n_checks: int = 16,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
    n_networks: int = 64,
) -> LatencyTable | NetworkTable:
    """Measures every distinct block of a family and a few whole random networks, interleaved.

    Of a family that is not made of blocks (`Family.from_builder`), only whole networks.

    Args:
        family_: whose blocks.
        device: what to measure on.
        rng: draws the whole networks; the smallest and the largest are always among them.
        n_checks: how many whole networks.
        on_progress: called with measuring rounds done and in all.
        n_networks: how many whole networks to predict others from, if there are no blocks.
    """
    if networks.is_whole(family_):
        return networks.profile_networks(family_, device, rng, n_networks, n_checks, on_progress)
    blocks = list(distinct_blocks(family_))
    space = family_.space
    archs = [space.smallest, space.largest, *(space.decode(row) for row in space.sample(max(n_checks - 2, 0), rng))]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        models: list[tuple[nn.Module, tuple[int, ...]]] = [(nn.Identity().eval(), (1, 1, 1))]
        models += [(block.build().eval(), block.input_shape(size)) for block, size in blocks]
        models += [(family_.build(arch).eval(), family_.input_shape(arch)) for arch in archs]
    overhead, *timings = device.measure(models, on_progress)
    rows = {(repr(block), size): timing for (block, size), timing in zip(blocks, timings, strict=False)}
    checks = tuple(Check(arch, timing) for arch, timing in zip(archs, timings[len(blocks) :], strict=True))
    return LatencyTable(family_, device.description, now(), overhead, rows, checks)
