"""Published tables as search spaces with the accuracies of their archs.

The tables are read where they lie; what each holds, and where it comes from, is said in the README beside them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import ofa
from ofa.predict.encoding import Encoding
from ofa.predict.predictor import as_encoding
from ofa.space.arch import Rows
from ofa.space.choice import Choice
from ofa.space.graphs import Graphs
from ofa.space.search_space import SearchSpace

Floats = NDArray[np.float64]

_OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
_CELL_EDGES = ((0, 1), (0, 2), (1, 2), (0, 3), (1, 3), (2, 3))


@dataclass(frozen=True, eq=False)
class Table:
    """Archs whose accuracies somebody published.

    Attributes:
        encoding: the search space, and graphs where they say more.
        rows: the archs `[n, n_choices]`.
        top1_percent: their accuracies `[n]`.
    """

    encoding: Encoding
    rows: Rows
    top1_percent: Floats

    def positions(self, rows: Rows) -> list[int]:
        """Return the positions in the table of canonical rows `[n, n_choices]`."""
        return [self._position[key.tobytes()] for key in self.encoding.space.keys(rows)]

    @cached_property
    def _position(self) -> dict[bytes, int]:
        return {key.tobytes(): i for i, key in enumerate(self.encoding.space.keys(self.rows))}


def nas_bench_201(tables: Path) -> Table:
    """CIFAR-10 validation accuracies after 200 epochs of all 15,625 cells (arXiv 2001.00326)."""
    content = np.load(tables / "mingkai-zheng_GENIUS/nb201_val_test_200ep.npz")
    return Table(_cells(), nas_bench_201_rows(tables), content["acc"][:, 0].astype(np.float64))


def nas_bench_201_rows(tables: Path) -> Rows:
    """Return all cells `[15625, 6]` in the order of the tables."""
    return np.asarray(np.load(tables / "HayeonLee_HELP/nb201_latency.npz")["ops"], dtype=np.int64)


def nas_bench_macro(tables: Path) -> Table:
    """CIFAR-10 accuracies, means of 3 seeds, of 8 layers with 3 operations each (arXiv 2103.11922)."""
    content = np.load(tables / "xiusu_NAS-Bench-Macro/nas_bench_macro_cifar10.npz")
    space = SearchSpace(Choice(f"layer{i}.operation", (0, 1, 2)) for i in range(8))
    return Table(Encoding(space), content["arch"].astype(np.int64), content["mean_acc"].astype(np.float64))


def channel_bench_macro(tables: Path) -> Table:
    """CIFAR-10 accuracies, means of 3 seeds, of all widths of a MobileNet."""
    content = np.load(tables / "xiusu_Channel-Bench-Macro/Results_MobileNet.npz")
    space = SearchSpace(Choice(f"layer{i}.width", (0.25, 0.5, 0.75, 1.0)) for i in range(7))
    return Table(Encoding(space), content["widths"].astype(np.int64) - 1, content["mean_acc"].astype(np.float64))


def ofa_mobilenet_v3(tables: Path) -> Table:
    """ImageNet accuracies of subnets of once-for-all's MobileNetV3 that searches evaluated; means of repeated ones."""
    content = np.load(tables / "IntelLabs_DyNAS-T/ofa_mbv3_w10_imagenet_acc.npz")
    family = ofa.create_family("ofa_mobilenet_v3", resolutions=[224])
    values = {f"stage{stage}.depth": content["d"][:, stage] for stage in range(5)} | {"resolution": content["r"]}
    for i in range(20):
        block = f"stage{i // 4}.block{i % 4}"
        values |= {f"{block}.kernel": content["ks"][:, i], f"{block}.expand": content["e"][:, i]}
    choices = family.space.choices
    columns = [np.searchsorted(one.values, values[one.name]).clip(0, len(one.values) - 1) for one in choices]
    rows = family.space.canonical(np.stack(columns, axis=1).astype(np.int64))
    different = family.space.unique(rows)
    index = {key.tobytes(): i for i, key in enumerate(family.space.keys(different))}
    arch = np.array([index[key.tobytes()] for key in family.space.keys(rows)])
    return Table(as_encoding(family), different, np.bincount(arch, content["top1"]) / np.bincount(arch))


TABLES: dict[str, Callable[[Path], Table]] = {
    "NAS-Bench-201": nas_bench_201,
    "NAS-Bench-Macro": nas_bench_macro,
    "Channel-Bench-Macro": channel_bench_macro,
    "OFA-MobileNetV3": ofa_mobilenet_v3,
}


def nas_bench_201_space() -> SearchSpace:
    """Return the cells of 6 edges with one of 5 operations each."""
    return SearchSpace(Choice(f"edge{a}{b}.operation", tuple(range(5))) for a, b in _CELL_EDGES)


def _cells() -> Encoding:
    return Encoding(nas_bench_201_space(), graph=_cell_graphs)


def _cell_graphs(rows: Rows) -> Graphs:
    """Return cells as graphs of their operations; a skip connection is a connection, and none is none."""
    n = len(rows)
    reach = np.tile(np.eye(4), (n, 1, 1))  # ways to get from one sum of the cell to another by skip connections
    for start in range(4):
        for end in range(start + 1, 4):
            for middle in range(start, end):
                skips = rows[:, _CELL_EDGES.index((middle, end))] == _OPERATIONS.index("skip_connect")
                reach[:, start, end] += reach[:, start, middle] * skips
    kinds = np.full((n, 8), -1)
    kinds[:, 0], kinds[:, -1] = 0, 1
    kinds[:, 1:-1] = np.where(rows >= 2, rows, -1)
    begins, ends = [0, *(b for _, b in _CELL_EDGES), 3], [0, *(a for a, _ in _CELL_EDGES), 3]
    edges = np.zeros((n, 8, 8))
    for a in range(7):
        for b in range(a + 1, 8):
            there = (kinds[:, a] >= 0) & (kinds[:, b] >= 0) & (begins[a] <= ends[b])
            edges[:, a, b] = there * reach[:, begins[a], ends[b]]
    return Graphs(kinds, np.zeros((n, 8, 0), dtype=np.float32), edges.astype(np.float32))
