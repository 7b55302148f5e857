"""Latency tables of whole networks, for families that are not made of blocks (`Family.from_builder`).

Some networks are measured; the latency of any other arch is predicted by a Gaussian process over its choices. One JSON
file; `latency_luts/README.md` describes the format.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
from threadpoolctl import threadpool_limits

from ofa.cost.table_file import Check, entries, family_of, header, measured, now, reading
from ofa.device import Device
from ofa.families import Family
from ofa.files import write_json
from ofa.space import Rows, SearchSpace

FORMAT, VERSION = "ofa-network-table", 1


@dataclass(frozen=True)
class NetworkTable:
    """Latencies of some of a family's networks on one device, at batch 1.

    Attributes:
        family: whose networks.
        device: what was measured: runtime and versions, processor, threads, precision.
        date: when, ISO 8601.
        networks: what the prediction is fitted to.
        checks: others, measured in the same rounds, never used for the prediction.
    """

    family: Family
    device: Mapping[str, Any]
    date: str
    networks: tuple[Check, ...]
    checks: tuple[Check, ...]

    def __call__(self, rows: Rows) -> NDArray[np.float64]:
        """Predicted latency in milliseconds `[n]` of rows `[n, n_choices]`."""
        if not len(rows):
            return np.zeros(0)
        with threadpool_limits(1, user_api="blas"):  # matrices this small are slower on several
            logs: NDArray[np.float64] = self._process.predict(_features(self.family.space, rows))
        return np.exp(logs)

    @cached_property
    def _process(self) -> GaussianProcessRegressor:
        """Fitted to logarithms, so that errors are relative; each choice has a length scale of its own."""
        space = self.family.space
        features = _features(space, space.rows(network.arch for network in self.networks))
        logs = np.log([network.timing.median_ms for network in self.networks])
        smooth = ConstantKernel(1.0, (1e-3, 1e3)) * RBF(np.ones(features.shape[1]), (1e-1, 1e3))
        process = GaussianProcessRegressor(smooth + WhiteKernel(1e-3, (1e-6, 1e-1)), normalize_y=True)
        with threadpool_limits(1, user_api="blas"), warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a scale at its bound: the choice hardly matters
            return process.fit(features, logs)

    def save(self, path: Path) -> None:
        """Writes the table as JSON, whole or not at all."""
        content = header(FORMAT, VERSION, self.family, self.device, self.date)
        write_json(path, content | {"networks": entries(self.networks), "checks": entries(self.checks)})

    @classmethod
    def load(cls, path: Path, family_: Family | None = None) -> NetworkTable:
        """Reads a table.

        Args:
            path: of a file that `save` wrote.
            family_: the family it must be of; by default the one that it names is made.

        Raises:
            TableError: unreadable, of another format or version, or of another family.
        """
        with reading(path) as content:
            made = family_of(content, path, FORMAT, VERSION, family_)
            networks, checks = (measured(content[key], made.space) for key in ("networks", "checks"))
            if any(network.timing.median_ms <= 0 for network in networks) or not networks:
                raise ValueError("a network's latency is not above 0, or there is none")
            return cls(made, content["device"], content["date"], networks, checks)


def profile_networks(
    family_: Family,
    device: Device,
    rng: np.random.Generator,
    n_networks: int = 64,
    n_checks: int = 16,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> NetworkTable:
    """Measures the smallest, the largest and random networks of a family, interleaved.

    All of them are in memory at once.

    Args:
        family_: whose networks.
        device: what to measure on.
        rng: draws the random ones, each once.
        n_networks: how many to fit the prediction to; of a space with fewer archs, all.
        n_checks: how many more to judge it by; at most a quarter of all.
        on_progress: called with measuring rounds done and in all.
    """
    space, wanted = family_.space, n_networks + n_checks
    drawn = np.concatenate([space.rows([space.smallest, space.largest]), space.sample(4 * wanted, rng)])
    archs = [space.decode(row) for row in space.unique(drawn)[:wanted]]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        models = [(family_.build(arch).eval(), family_.input_shape(arch)) for arch in archs]
    timings = device.measure(models, on_progress)
    every = tuple(Check(arch, timing) for arch, timing in zip(archs, timings, strict=True))
    n_fitted = len(every) - min(n_checks, len(every) // 4)
    networks, checks = every[:n_fitted], every[n_fitted:]
    return NetworkTable(family_, device.description, now(), networks, checks or networks)


def is_whole(family_: Family) -> bool:
    """Whether each network of a family is a single block, as with `Family.from_builder`."""
    return [slot.path for slot in family_.slots] == [""]


def _features(space: SearchSpace, rows: Rows) -> NDArray[np.float64]:
    """A number for each choice of several values, `[n, choices]`: 0 to 1 by the value's logarithm; -1 if inactive."""
    columns, active = [], space.active(rows)
    for column, choice in enumerate(space.choices):
        if len(choice.values) > 1:
            values = np.array(choice.values, dtype=float)
            scale = np.log(values) if values[0] > 0 else values
            scaled = (scale - scale[0]) / (scale[-1] - scale[0])
            columns.append(np.where(active[:, column], scaled[rows[:, column]], -1.0))
    return np.stack(columns, axis=1)
