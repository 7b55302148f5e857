"""Profiling: which models of a family are measured for a latency table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from pydantic import Field
from torch import nn

from ofa.core.errors import TableError
from ofa.cost.block_table import distinct_blocks
from ofa.cost.counted import macs_m
from ofa.cost.latency.samples import SampleFile
from ofa.cost.latency.table import LatencyTable
from ofa.devices.device import Device, Model
from ofa.devices.estimator import LatencyEstimator
from ofa.devices.measure import MeasureConfig, measure
from ofa.space.arch import Arch
from ofa.space.search_space import SearchSpace
from ofa.supernet.block import Block
from ofa.supernet.family import Family

_OVERHEAD = "overhead"


class TableConfig(MeasureConfig):
    """What a latency table is made of."""

    networks: int = Field(100, ge=4, le=10_000)
    """Number of whole networks that predictions are fitted to, the smallest and the largest included."""
    checks: int = Field(16, ge=2, le=10_000)
    """Number of other networks, measured in the same rounds, that show how accurate predictions are."""


def profile(
    family: Family,
    device: Device,
    rng: np.random.Generator,
    *,
    like: LatencyTable | None = None,
    config: TableConfig | None = None,
    samples_path: Path | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> LatencyTable:
    """Measure every block of a family and some whole networks.

    Args:
        family: family to measure; of one without blocks, only networks are measured.
        device: device to measure on.
        rng: draws the networks and the order of measuring.
        like: table of the family on another device, whose timings of blocks are taken over, so that only networks are
            measured. Ten to thirty are enough if the same blocks are slow on both devices.
        config: how many networks to measure, and how precisely.
        samples_path: file that keeps every burst; an interrupted profile resumes from it.
        on_progress: called as `on_progress(done, total)`, see `measure`.

    Raises:
        DeviceError: the device cannot run a model, or is lost.
        TableError: `like` has no blocks, or the samples are unreadable or of another family or device.
    """
    if like is not None and not like.rows:
        raise TableError(f"{like!r} has no blocks; profile the new device without it")
    family, config = family if like is None else like.measured, config or TableConfig()
    blocks = [] if like is not None or family.is_whole else list(distinct_blocks(family))
    archs = _draw_archs(family.space, config.networks + config.checks, rng)
    models = {} if like is not None else {_OVERHEAD: Model(nn.Identity, (1, 1, 1))}
    models |= {_row(block, size): Model(block.build, block.input_shape(size)) for block, size in blocks}
    models |= {arch.to_json(): network(family, arch) for arch in archs}
    subject = {"family": {"name": family.name, "options": dict(family.options)}, "device": device.description}
    file = SampleFile(samples_path, subject)

    def save(done: int, total: int) -> None:
        file.save()
        on_progress(done, total)

    timings = measure(device, models, reference(family), rng, config=config, samples=file.samples, on_progress=save)
    estimator = LatencyEstimator.fit({name: file.samples[name] for name in models}, config.bursts)
    n_fitted = len(archs) - (min(config.checks, len(archs) // 2) if len(archs) >= 8 else 0)
    table = LatencyTable(
        measured=family,
        family=family,
        device=device.description | {"bursts": "fastest" if estimator.fastest else "all"},
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        overhead=timings[_OVERHEAD] if like is None else like.overhead,
        rows={(repr(block), size): timings[_row(block, size)] for block, size in blocks},
        networks={arch: timings[arch.to_json()] for arch in archs[:n_fitted]},
        checks={arch: timings[arch.to_json()] for arch in archs[n_fitted:] or archs},  # a small space has no others
    )
    if like is None:
        return table
    return replace(table, rows=like.rows, device={**table.device, "blocks_of": dict(like.device)})


def network(family: Family, arch: Arch) -> Model:
    """Return a whole network as a model for a device."""
    return Model(lambda: family.build(arch), family.input_shape(arch))


def reference(family: Family) -> Model:
    """Return the reference network of a family, always the same: the median of some random ones by MACs."""
    rows = family.space.sample(51, np.random.default_rng(0))
    return network(family, family.space.decode(rows[np.argsort(macs_m(family)(rows))[25]]))


def _draw_archs(space: SearchSpace, n: int, rng: np.random.Generator) -> list[Arch]:
    """Draw `n` different archs, the smallest and the largest first; fewer if the space has fewer."""
    rows = np.concatenate([space.rows([space.smallest, space.largest]), space.sample(4 * n, rng)])
    return [space.decode(row) for row in space.unique(rows)[:n]]


def _row(block: Block, size: int) -> str:
    return f"{block!r} at {size}"
