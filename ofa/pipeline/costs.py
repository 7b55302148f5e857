"""The costs of archs on a target, by name, on which limits and objectives can be put."""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from ofa.core.errors import InfeasibleError
from ofa.cost.block_table import BlockTable
from ofa.cost.counted import macs_m, params_m, peak_activation_mib, size_mib
from ofa.cost.energy import energy_mj
from ofa.devices.device import Model
from ofa.pipeline.target import Target
from ofa.search.algorithm import search
from ofa.search.problem import Constraint, Objective
from ofa.space.arch import Rows

Floats = NDArray[np.float64]
CostFunction = Callable[[Rows], Floats]

_BYTES_PER_WEIGHT = {"float32": 4.0, "float16": 2.0, "int8_dynamic": 1.0, "int8_static": 1.0}
_SIZED_ARCHS = 4  # beside the smallest and the largest


def target_costs(target: Target, precision: str) -> dict[str, CostFunction]:
    """Return the functions from rows `[n, n_choices]` to each cost `[n]` of a target in a precision.

    `size_mib` is that of the file if the target limits it, otherwise that of its weights. `energy_mj` is there if the
    target says its power. Latency is of one run, energy of one image.
    """
    family, config, table = target.run.family, target.config, target.latency_table(precision)
    macs, costs = macs_m(family), _counted(target, precision)
    costs["latency_ms"] = table
    named = {config.objective, *(name for limits in config.limits or () for name in limits)}
    if "size_mib" in named:
        costs["size_mib"] = file_size_mib(target, precision)
    if (power := config.power) is not None:
        costs["energy_mj"] = lambda rows: energy_mj(table(rows) / config.batch, macs(rows), power)
    return costs


def check_limits(target: Target) -> None:
    """Raise InfeasibleError if limits on counted costs cannot be met in any precision, with the tightest values."""
    family, rng = target.run.family, np.random.default_rng(0)
    errors: list[InfeasibleError] = []
    for limits in target.config.limits or ():
        for precision in target.precisions:
            counted = _counted(target, precision)
            constraints = [Constraint(name, counted[name], limits[name]) for name in limits if name in counted]
            try:
                objective = Objective("macs_m", counted["macs_m"])
                search(family.space, [objective], constraints, rng, population=60, generations=10)
                errors = []
                break
            except InfeasibleError as error:
                errors.append(error)
        if errors:
            raise InfeasibleError(f"target {target.name!r}: {errors[0]}") from errors[0]


def file_size_mib(target: Target, precision: str) -> CostFunction:
    """Return the size in MiB of the files of archs, fitted to files of some archs with random weights.

    A file has its weights, and for each block and at all an amount that does not depend on them. The largest error on
    the files is added, so that limits are met.
    """
    family, model_format = target.run.family, target.format
    n_blocks = BlockTable(family, lambda block, size: 1.0, name="blocks", unit="blocks")
    weights = size_mib(family)

    def features(rows: Rows) -> Floats:
        return np.stack([weights(rows), n_blocks(rows), np.ones(len(rows))], axis=1)

    space = family.space
    drawn = [space.rows([space.smallest, space.largest]), space.sample(_SIZED_ARCHS, np.random.default_rng(0))]
    rows = space.unique(np.concatenate(drawn))
    sizes_mib = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"model{model_format.suffix}"
        for arch in map(space.decode, rows):
            shape = family.input_shape(arch)
            images = np.random.default_rng(0).standard_normal((8, *shape), dtype=np.float32)
            network = Model(partial(family.build, arch), shape).module()
            model_format.write(network, shape, path, precision=precision, images=images, metadata={})
            sizes_mib.append(path.stat().st_size / 2**20)
    coefficients, _ = nnls(features(rows), np.array(sizes_mib))
    margin = float(np.max(np.array(sizes_mib) - features(rows) @ coefficients))
    return lambda rows: np.asarray(features(rows) @ coefficients + margin)


def _counted(target: Target, precision: str) -> dict[str, CostFunction]:
    family, share = target.run.family, _BYTES_PER_WEIGHT.get(precision, 4.0) / 4
    weights = size_mib(family)
    return {
        "macs_m": macs_m(family),
        "params_m": params_m(family),
        "size_mib": lambda rows: share * weights(rows),
        "peak_activation_mib": peak_activation_mib(family),
    }
