"""Latency on a new device from ten networks, by HELP's protocol (arXiv 2106.08630) on its tables."""

import time
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import rankdata, spearmanr

from benchmarks.search.store import kept
from benchmarks.search.tables import Floats, nas_bench_201_space
from ofa.cost.latency.transfer import Networks, Transfer
from ofa.predict.encoding import Encoding
from ofa.space.arch import Rows
from ofa.space.choice import Choice
from ofa.space.search_space import SearchSpace

N_QUERIED = 1000
METHODS = ("mean of the other devices", "10 networks", "20 networks", "10 networks, drawn")
"""The last as HELP draws them, among those of middling latency; else the model chooses."""
OTHERS = ("silver_4114", "silver_4210r", "samsung_a50", "pixel3", "essential_ph_1", "samsung_s7")


@dataclass(frozen=True)
class Protocol:
    """A space of HELP's: the devices that are known, and those that are new.

    Attributes:
        file: of the latencies, in `HayeonLee_HELP/`.
        archs: name of its array of archs.
        space: of the archs.
        others: devices whose networks are known.
        new: devices that are predicted.
        n_known: the first archs, which may be measured; as many others as `N_QUERIED` after them are predicted.
        published: mean Spearman of HELP with 10 networks.
    """

    file: str
    archs: str
    space: SearchSpace
    others: tuple[str, ...]
    new: tuple[str, ...]
    n_known: int
    published: float


PROTOCOLS = {
    "NAS-Bench-201": Protocol(
        "nb201_latency.npz",
        "ops",
        nas_bench_201_space(),
        ("1080ti_1", "1080ti_32", "1080ti_256", *OTHERS),
        ("titan_rtx_256", "gold_6226", "pixel2", "raspi4", "eyeriss", "fpga"),
        900,
        0.932,
    ),
    "FBNet": Protocol(
        "fbnet_latency.npz",
        "op_idx",
        SearchSpace(Choice(f"layer{i}.operation", tuple(range(9))) for i in range(22)),
        ("1080ti_1", "1080ti_32", "1080ti_64", *OTHERS),
        ("raspi4", "eyeriss", "fpga"),
        4000,
        0.910,
    ),
}


def measure(tables: Path, seeds: range) -> None:
    """Predict every new device, where results are missing."""
    for name, seed in product(PROTOCOLS, seeds):
        kept("devices", key(name, seed), partial(_seed, tables, name, seed))


def key(protocol: str, seed: int) -> str:
    """Return the name of a result."""
    return f"{protocol}, seed {seed}"


def _seed(tables: Path, name: str, seed: int) -> dict[str, Any]:
    """Return results by method and device, and the processor time in seconds that one device takes."""
    protocol, start = PROTOCOLS[name], time.process_time()
    content = np.load(tables / "HayeonLee_HELP" / protocol.file)
    rows, devices = content[protocol.archs].astype(np.int64), content["devices"].tolist()
    latency_ms = {device: content["latency"][:, devices.index(device)].astype(float) for device in devices}
    known, queried = rows[: protocol.n_known], slice(protocol.n_known, protocol.n_known + N_QUERIED)
    others = [Networks(known, latency_ms[device][: len(known)]) for device in protocol.others]
    transfer = Transfer(Encoding(protocol.space), others, seed=seed)
    learning, start = time.process_time() - start, time.process_time()
    mean_rank = np.mean([rankdata(latency_ms[device][queried]) for device in protocol.others], axis=0)
    results: dict[str, Any] = {method: {} for method in METHODS}
    for device in protocol.new:
        true_ms = latency_ms[device]
        results[METHODS[0]][device] = {"spearman": _middling(mean_rank, true_ms[queried])}
        for method in METHODS[1:]:
            chosen = _choose(transfer, method, known, true_ms[: len(known)], seed)
            fitted = transfer.fit(Networks(rows[chosen], true_ms[chosen]))
            results[method][device] = _judge(fitted, rows[queried], true_ms[queried])
    seconds = learning + (time.process_time() - start) / (len(METHODS[1:]) * len(protocol.new))
    return results | {"seconds": round(seconds, 1)}


def _choose(transfer: Transfer, method: str, known: Rows, known_ms: Floats, seed: int) -> Any:
    n = int(method.split()[0])
    if not method.endswith("drawn"):
        return transfer.choose(n, known)
    low, high = np.quantile(known_ms, (0.1, 0.9))
    middling = np.flatnonzero((low <= known_ms) & (known_ms <= high))
    return np.random.default_rng(seed).permutation(middling)[:n]


def _judge(fitted: Any, rows: Rows, true_ms: Floats) -> dict[str, float]:
    mean, low, high = fitted.predict(rows)
    return {
        "spearman": _middling(mean, true_ms),
        "spearman_all": float(spearmanr(mean, true_ms).statistic),
        "within_10_percent": 100 * float(np.mean(np.abs(mean / true_ms - 1) <= 0.1)),
        "coverage_percent": 100 * float(np.mean((low <= true_ms) & (true_ms <= high))),
    }


def _middling(predicted: Floats, true_ms: Floats) -> float:
    """Return the rank correlation over archs between the 10th and the 90th percentile, as HELP does."""
    low, high = np.quantile(true_ms, (0.1, 0.9))
    chosen = (low <= true_ms) & (true_ms <= high)
    return float(spearmanr(predicted[chosen], true_ms[chosen]).statistic)
