"""Making a latency table: what of a family is measured, and how an unfinished table is gone on with."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field
from torch import nn

from ofa.core.errors import TableError
from ofa.core.files import write_json
from ofa.cost.block_table import distinct_blocks
from ofa.cost.counted import macs_m
from ofa.cost.latency.table import LatencyTable, Measured
from ofa.devices.device import Device, Model, Timing
from ofa.devices.measure import MeasureConfig, measure
from ofa.devices.statistic import Samples, Statistic
from ofa.space.arch import Arch
from ofa.supernet.family import Family

FORMAT, VERSION = "ofa-latency-samples", 2


_OVERHEAD = "overhead"


class TableConfig(MeasureConfig):
    """What a latency table is made of."""

    networks: int = Field(100, ge=4)
    """Whole networks that predictions are fitted to; the smallest and the largest are among them."""
    checks: int = Field(16, ge=2)
    """Others measured beside them, to see how far predictions are off."""


DEFAULT = TableConfig()


def profile(
    family: Family,
    device: Device,
    rng: np.random.Generator,
    config: TableConfig = DEFAULT,
    samples_path: Path | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> LatencyTable:
    """Measures every block of a family and some whole networks.

    Args:
        family: whose blocks; of one that is not made of blocks, only networks are measured.
        device: what to measure on.
        rng: draws the networks, and the order of measuring.
        config: how many networks, and how precisely.
        samples_path: a file that keeps every burst; what is there already is gone on with, and only what is missing or
            doubtful is measured.
        on_progress: called with what is done, and what there is to do; see `measure`.

    Raises:
        DeviceError: the device cannot run a model, or is lost.
        TableError: the samples are of something else.
    """
    blocks = {} if family.is_whole else {(repr(block), size): block for block, size in distinct_blocks(family)}
    models = {_OVERHEAD: Model(nn.Identity, (1, 1, 1))}
    models |= {_row(*key): Model(block.build, block.input_shape(key[1])) for key, block in blocks.items()}
    archs = _archs(family, config.networks + config.checks, rng)
    timings, taken = _measured(family, models, archs, device, rng, config, samples_path, on_progress)
    networks, checks = _split(archs, timings, config.checks)
    rows = {key: timings[_row(*key)] for key in blocks}
    return LatencyTable(family, family, taken, _now(), timings[_OVERHEAD], rows, networks, checks)


def adapt(
    table: LatencyTable,
    device: Device,
    rng: np.random.Generator,
    config: TableConfig = DEFAULT,
    samples_path: Path | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> LatencyTable:
    """A table of a new device from a few measured networks, with the blocks that another device's table has.

    Ten to thirty networks are enough where the two devices are alike in what is slow on them.

    Args:
        table: of the other device.
        device: the new one.
        rng: draws the networks, and the order of measuring.
        config: how many networks, and how precisely.
        samples_path: keeps every burst, as in `profile`.
        on_progress: called with what is done, and what there is to do; see `measure`.

    Raises:
        DeviceError: the device cannot run a model, or is lost.
        TableError: the samples are of something else, or the table has no blocks.
    """
    family = table.measured
    if not table.rows:
        raise TableError(f"the table of {family.name!r} has no blocks to adapt; profile the new device instead")
    archs = _archs(family, config.networks + config.checks, rng)
    timings, taken = _measured(family, {}, archs, device, rng, config, samples_path, on_progress)
    networks, checks = _split(archs, timings, config.checks)
    taken |= {"blocks_of": dict(table.device)}
    return replace(table, device=taken, date=_now(), networks=networks, checks=checks)


def _measured(
    family: Family,
    models: Mapping[str, Model],
    archs: list[Arch],
    device: Device,
    rng: np.random.Generator,
    config: TableConfig,
    samples_path: Path | None,
    on_progress: Callable[[int, int], None],
) -> tuple[dict[str, Timing], dict[str, Any]]:
    """Timings of models and of whole networks, and how they were taken; every burst is kept as soon as it is there."""
    about = {"family": {"name": family.name, "options": dict(family.options)}, "device": device.description}
    samples = {} if samples_path is None else _read(samples_path, about)
    n_kept = 0

    def keep(done: int, total: int) -> None:
        nonlocal n_kept
        n_bursts = sum(map(len, samples.values()))
        if samples_path is not None and n_bursts > n_kept:
            write_json(samples_path, {"format": FORMAT, "version": VERSION} | about | {"samples": samples})
        n_kept = n_bursts
        on_progress(done, total)

    every = dict(models) | {_network(arch): network(family, arch) for arch in archs}
    timings = measure(device, every, reference(family), rng, config, samples, keep)
    statistic = Statistic.of({name: samples[name] for name in every}, config.bursts)
    return timings, device.description | {"bursts": "fastest" if statistic.fastest else "all"}


def _split(
    archs: list[Arch], timings: Mapping[str, Timing], n_checks: int
) -> tuple[tuple[Measured, ...], tuple[Measured, ...]]:
    """Networks to fit to, and others to check with: at most half; of fewer than 8, the same."""
    every = tuple(Measured(arch, timings[_network(arch)]) for arch in archs)
    n_fitted = len(every) - (min(n_checks, len(every) // 2) if len(every) >= 8 else 0)
    return every[:n_fitted], every[n_fitted:] or every


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def network(family: Family, arch: Arch) -> Model:
    """A whole network as a device runs it."""
    return Model(lambda: family.build(arch), family.input_shape(arch))


def reference(family: Family) -> Model:
    """The network that is timed along with all others, always the same: of middling size."""
    rows = family.space.sample(51, np.random.default_rng(0))
    return network(family, family.space.decode(rows[np.argsort(macs_m(family)(rows))[25]]))


def _archs(family: Family, n: int, rng: np.random.Generator) -> list[Arch]:
    """The smallest, the largest and random archs, each once; fewer than `n` of a space that has fewer."""
    space = family.space
    drawn = np.concatenate([space.rows([space.smallest, space.largest]), space.sample(4 * n, rng)])
    return [space.decode(row) for row in space.unique(drawn)[:n]]


def _row(block: str, size: int) -> str:
    return f"{block} at {size}"


def _network(arch: Arch) -> str:
    return json.dumps(dict(arch))


def _read(path: Path, about: Mapping[str, Any]) -> Samples:
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        same = all(content[key] == json.loads(json.dumps(value)) for key, value in about.items())
        same = same and (content["format"], content["version"]) == (FORMAT, VERSION)
        samples: Samples = {
            name: [(float(ms), float(around), int(session)) for ms, around, session in bursts]
            for name, bursts in content["samples"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise TableError(f"{path} is not a readable file of samples ({error!r}); remove it to begin anew") from error
    if not same:
        raise TableError(f"{path} has samples of another family or device; remove it to begin anew")
    return samples
