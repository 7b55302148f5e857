"""Profiling: which models of a family are measured for a latency table, and the file that keeps unfinished samples."""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
from pydantic import Field
from torch import nn

from ofa.core.errors import TableError
from ofa.core.files import read_json, write_json
from ofa.cost.block_table import distinct_blocks
from ofa.cost.counted import macs_m
from ofa.cost.latency.measurements import OtherDevice
from ofa.cost.latency.table import LatencyTable
from ofa.cost.latency.transfer import Transfer
from ofa.devices.device import Device, Model
from ofa.devices.estimator import Burst, LatencyEstimator, Samples
from ofa.devices.measure import MeasureConfig, measure
from ofa.space.arch import Arch
from ofa.space.search_space import SearchSpace
from ofa.supernet.block import Block
from ofa.supernet.family import Family

SAMPLES_FORMAT, SAMPLES_VERSION = "ofa-latency-samples", 2
_OVERHEAD = "overhead"
_POOL = 2000
"""Random networks among which those to measure are chosen, where other devices are known."""
_BLOCKS_PER_NETWORK = 2
"""Blocks that are measured with each network, where time is limited."""
_USED_ARCHS = 200
"""Random archs whose blocks come first."""
_FEWEST_NETWORKS = 4


class TableConfig(MeasureConfig):
    """What a latency table is made of."""

    networks: int = Field(100, ge=_FEWEST_NETWORKS, le=10_000)
    """Number of whole networks that predictions are fitted to, the smallest and the largest included."""
    checks: int = Field(16, ge=2, le=10_000)
    """Number of other networks, measured in the same rounds, that show how accurate predictions are."""
    minutes: float | None = Field(None, gt=0, le=10_000)
    """Time for the whole table. What tells most is measured first: some networks and the blocks that are in use most;
    the other blocks are inferred from these. With more minutes, a table goes on from there."""


def profile(
    family: Family,
    device: Device,
    rng: np.random.Generator,
    *,
    like: Sequence[LatencyTable] = (),
    config: TableConfig | None = None,
    samples_path: Path | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> LatencyTable:
    """Measure every block of a family and some whole networks on a device; only networks if it has no blocks.

    `rng` draws the networks and the order of measuring. The file `samples_path` keeps every burst, and an interrupted
    profile resumes from it. See `measure` for `on_progress`. With `TableConfig.minutes`, blocks and networks for which
    there is no time are left out of the table, which infers these blocks from the others.

    `like` are tables of the family on other devices, so that only networks are measured here; ten to thirty are enough.
    Of a single table, the timings of blocks are taken over. Of several, or of one without blocks, whole networks tell
    which networks to measure, and what to expect of the others (`Transfer`).

    Raises:
        DeviceError: the device cannot run a model, or is lost.
        TableError: the tables in `like` are of families with different options, the samples are unreadable or of
            another family or device, or the time was not enough for four networks.
    """
    start = monotonic()
    family, config = like[0].measured if like else family, config or TableConfig()
    if any(table.measured.space.choices != family.space.choices for table in like):
        raise TableError("the tables of other devices were measured with different options; give tables of one family")
    of_blocks = like[0] if len(like) == 1 and like[0].rows else None  # the table whose blocks are taken over
    others = [] if of_blocks else [OtherDevice(table.device, table.latency_ms()) for table in like]
    blocks = [] if like or family.is_whole else list(distinct_blocks(family))
    fitted, checks = _draw_networks(family, others, config, rng)
    models = {} if of_blocks else {_OVERHEAD: Model(nn.ReLU, (1, 1, 1))}  # every converter knows it
    models |= _in_order(family, blocks, fitted, checks, rng)
    subject = {"family": {"name": family.name, "options": dict(family.options)}, "device": device.description}
    file = SampleFile(samples_path, subject)
    spent_s = file.seconds

    def save(done: int, total: int) -> None:
        file.seconds = spent_s + monotonic() - start
        file.save()
        on_progress(done, total)

    timings = measure(
        device,
        models,
        reference(family),
        rng,
        config=config,
        samples=file.samples,
        seconds=None if config.minutes is None else 60 * config.minutes - spent_s - (monotonic() - start),
        on_progress=save,
    )
    estimator = LatencyEstimator.fit({name: file.samples[name] for name in timings}, config.bursts)
    bursts = "fastest" if estimator.fastest else "all"
    description = device.description | {"bursts": bursts, "reference_ms": estimator.reference_ms}
    networks, known_checks = (
        {arch: timings[_name(arch)] for arch in archs if _name(arch) in timings} for archs in (fitted, checks)
    )
    if len(networks) < min(_FEWEST_NETWORKS, len(fitted)) or (_OVERHEAD in models and _OVERHEAD not in timings):
        raise TableError(
            f"minutes = {config.minutes:g} was enough for {len(networks)} networks of {family.name}; a table needs "
            f"{_FEWEST_NETWORKS}, and the {_OVERHEAD} of a call; allow more minutes: what was measured is kept"
        )
    rows = {(repr(block), size): _row(block, size) for block, size in blocks}
    return LatencyTable(
        measured=family,
        family=family,
        device=description | ({"blocks_of": dict(of_blocks.device)} if of_blocks else {}),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        overhead=of_blocks.overhead if of_blocks else timings[_OVERHEAD],
        rows=of_blocks.rows if of_blocks else {key: timings[row] for key, row in rows.items() if row in timings},
        networks=networks,
        checks=known_checks or networks,  # a small space has no others
        others=others,
    )


def network(family: Family, arch: Arch) -> Model:
    """Return a whole network as a model for a device."""
    return Model(lambda: family.build(arch), family.input_shape(arch))


def reference(family: Family) -> Model:
    """Return the reference network of a family, always the same: the median of some random ones by MACs."""
    rows = family.space.sample(51, np.random.default_rng(0))
    return network(family, family.space.decode(rows[np.argsort(macs_m(family)(rows))[25]]))


def _draw_networks(
    family: Family, others: Sequence[OtherDevice], config: TableConfig, rng: np.random.Generator
) -> tuple[list[Arch], list[Arch]]:
    """Draw the networks that predictions are fitted to, and checks; fewer if the space has fewer."""
    archs = _draw_archs(family.space, config.networks + config.checks, rng)
    if not others:
        n_fitted = len(archs) - (min(config.checks, len(archs) // 2) if len(archs) >= 8 else 0)
        return archs[:n_fitted], archs[n_fitted:]
    pool = _draw_archs(family.space, _POOL, rng)
    chosen = Transfer.of(family, others).choose(config.networks, family.space.rows(pool))
    fitted = [pool[i] for i in chosen]
    return fitted, [arch for arch in archs if arch not in fitted][: config.checks]


def _in_order(
    family: Family, blocks: list[tuple[Block, int]], fitted: list[Arch], checks: list[Arch], rng: np.random.Generator
) -> dict[str, Model]:
    """Return the models by name, those first that tell most where time is limited.

    Networks come in their order, checks evenly between them, and blocks in the order in which they occur in networks,
    so that those in use most come early.
    """
    archs = [*fitted, *_draw_archs(family.space, _USED_ARCHS, rng)] if blocks else []
    used = dict.fromkeys(
        (block, slot.size(int(arch["resolution"])))
        for arch in archs
        for slot, block in family.blocks(family.space.row(arch))
        if block is not None
    )
    used |= dict.fromkeys(blocks[i] for i in rng.permutation(len(blocks)))
    place = {(block, size): i / _BLOCKS_PER_NETWORK for i, (block, size) in enumerate(used)}
    placed = [(place[key], _row(*key), Model(key[0].build, key[0].input_shape(key[1]))) for key in blocks]
    for ordered, step in ((fitted, 1.0), (checks, len(fitted) / max(len(checks), 1))):
        placed += [((i + 1) * step, _name(arch), network(family, arch)) for i, arch in enumerate(ordered)]
    return {name: model for _, name, model in sorted(placed, key=lambda one: one[0])}


def _draw_archs(space: SearchSpace, n: int, rng: np.random.Generator) -> list[Arch]:
    """Draw `n` different archs, the smallest and the largest first; fewer if the space has fewer."""
    rows = np.concatenate([space.rows([space.smallest, space.largest]), space.sample(4 * n, rng)])
    return [space.decode(row) for row in space.unique(rows)[:n]]


def _name(arch: Arch) -> str:
    return json.dumps(dict(arch))


def _row(block: Block, size: int) -> str:
    return f"{block!r} at {size}"


class SampleFile:
    """Bursts of some models, by name, and the file that keeps them; it may not exist yet, and None keeps nothing.

    Attributes:
        samples: the bursts.
        seconds: how long measuring them took.

    The subject says what is measured (family and device), as JSON values.

    Raises:
        TableError: the file is unreadable, or its bursts are of something else.
    """

    def __init__(self, path: Path | None, subject: Mapping[str, Any]) -> None:
        self._path, self._header = path, {"format": SAMPLES_FORMAT, "version": SAMPLES_VERSION, **subject}
        self.samples: Samples
        self.samples, self.seconds = _read_samples(path, self._header) if path and path.exists() else ({}, 0.0)
        self._n_saved = 0

    def save(self) -> None:
        """Write the bursts, whole or not at all, if there are new ones."""
        n_bursts = sum(map(len, self.samples.values()))
        if self._path is not None and n_bursts > self._n_saved:
            write_json(self._path, self._header | {"seconds": round(self.seconds, 1), "samples": self.samples})
            self._n_saved = n_bursts


def _read_samples(path: Path, header: Mapping[str, Any]) -> tuple[Samples, float]:
    try:
        content = read_json(path)
        if any(content[key] != json.loads(json.dumps(value)) for key, value in header.items()):
            raise TableError(f"{path} has samples of another family or device; remove it to start again")
        samples = {
            model: [Burst(float(run_ms), float(reference_ms), int(session)) for run_ms, reference_ms, session in bursts]
            for model, bursts in content["samples"].items()
        }
        return samples, float(content.get("seconds", 0.0))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise TableError(f"{path} is not a readable file of samples ({error!r}); remove it to start again") from error
