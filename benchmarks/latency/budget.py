"""Tables measured in two and in five minutes, judged on networks that they never used.

`python -m benchmarks.latency.budget [CASE ...]` measures what is missing and writes docs/results/latency_budget.md. The
machine has to be quiet; a case takes 10 to 25 minutes, most of them for the networks that judge.
"""

import json
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from benchmarks.jobs import read
from benchmarks.page import RESULTS, table, write_page
from ofa import LatencyTable, create_family
from ofa.core.files import write_json
from ofa.cost.latency.profile import SampleFile, TableConfig, network, profile, reference
from ofa.cost.latency.table import latency_metrics
from ofa.devices.estimator import LatencyEstimator, Samples
from ofa.devices.measure import MeasureConfig, measure
from ofa.devices.registry import create_device
from ofa.space.arch import Arch

FAMILIES = ("ofa_mobilenet_v3", "hybrid", "s3_tiny")
DEVICES = ("ort-cpu", "openvino-cpu")
CASES = [f"{family}, {device}" for device in DEVICES for family in FAMILIES]
MINUTES = (2, 5)
N_JUDGED = 100
SITTINGS = 3
JUDGED = MeasureConfig(min_rounds=8, max_rounds=8, precision_percent=100, weights_mib=8192)
FOLDER = Path("runs/benchmark-latency-budget")
KEPT = RESULTS / "latency/budget.json"
_LIMITS = """
What limits the table is not the time. A network is some percent faster or slower once it is loaded again (*sittings*),
and what else is loaded shifts all of them against the reference: 30 networks of `ofa_mobilenet_v3` alone were 1.6 %
faster than in a group with 60 blocks, and 2.0 % slower in one with 60 other networks. A table is measured in groups of
32 models, and the networks that judge it in one group of 100.
"""
_SHOWN = {
    "sittings_percent": ".1f",
    "off_percent": "+.1f",
    "mean_error_percent": ".2f",
    "within_5_percent": ".0f",
    "within_10_percent": ".0f",
    "within_5_percent_of_all": ".0f",
    "spearman": ".4f",
    "in_interval_percent": ".0f",
}
INTRODUCTION = f"""
# Latency tables within minutes

`python -m benchmarks.latency.budget` writes this page. Each table is measured with `minutes` on one thread of a quiet
machine, that of five minutes by going on from that of two, and judged on {N_JUDGED} random networks that it never
used. These are measured after it, in {SITTINGS} sittings of {JUDGED.min_rounds} rounds, each in its own process.

- *Seconds*: time that the measurement took, the choice of models included.
- *Rows*: blocks that were measured; the others of the family are inferred.
- *Sittings*: standard deviation of a network's latency from one sitting to the next, which no prediction can know.
- *Off by*: median of predicted over measured latency, less 1; *without it*: within 5 % once this is taken out.
- *In interval*: share of measured latencies within the 90 % intervals.
"""


def measure_case(name: str) -> dict[str, dict[str, float]]:
    """Return what each number of minutes led to."""
    family_name, device_name = name.split(", ")
    family, device, folder = create_family(family_name), create_device(device_name), FOLDER / name.replace(", ", "-")
    folder.mkdir(parents=True, exist_ok=True)
    tables = dict[int, LatencyTable]()
    seconds = dict[int, float]()
    for minutes in MINUTES:
        path, start = folder / f"{minutes}.json", time.monotonic()
        if not path.exists():
            config, rng = TableConfig(minutes=minutes), np.random.default_rng(0)
            measured = profile(family, device, rng, config=config, samples_path=folder / "samples.json")
            path.with_suffix(".seconds").write_text(f"{time.monotonic() - start + sum(seconds.values()):.1f}")
            measured.save(path)
        tables[minutes] = LatencyTable.load(path, family)
        seconds[minutes] = float(path.with_suffix(".seconds").read_text())
    archs = _judged_archs(tables[max(MINUTES)])
    sittings = []
    for sitting in range(SITTINGS):
        path = folder / f"judged-{sitting}.json"
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            process.submit(_measure_judged, name, archs, path).result()
        sittings.append(SampleFile(path, {"case": name}).samples)
    return {
        str(minutes): _judge(latency, archs, sittings) | {"seconds": seconds[minutes]}
        for minutes, latency in tables.items()
    }


def _judged_archs(used: LatencyTable) -> list[Arch]:
    space = used.family.space
    archs = [space.decode(row) for row in space.unique(space.sample(4 * N_JUDGED, np.random.default_rng(1)))]
    return [arch for arch in archs if arch not in used.networks and arch not in used.checks][:N_JUDGED]


def _measure_judged(name: str, archs: list[Arch], path: Path) -> None:
    family_name, device_name = name.split(", ")
    family, file = create_family(family_name), SampleFile(path, {"case": name})
    models = {_key(arch): network(family, arch) for arch in archs}
    rng = np.random.default_rng(2)
    measure(create_device(device_name), models, reference(family), rng, config=JUDGED, samples=file.samples)
    file.save()


def _judge(latency: LatencyTable, archs: list[Arch], sittings: list[Samples]) -> dict[str, float]:
    """Compare a table with the mean of the sittings, given at its speed."""
    measured = []
    for samples in sittings:
        estimator = LatencyEstimator.fit(samples, "all", reference_ms=latency.device["reference_ms"])
        measured.append([estimator(samples[_key(arch)]).median_ms for arch in archs])
    measured_ms = np.exp(np.log(measured).mean(axis=0))
    prediction = latency.predict(latency.family.space.rows(archs))
    counts = {"rows": len(latency.rows), "networks": len(latency.networks), "checks": len(latency.checks)}
    ratio = prediction.mean / measured_ms
    off = {
        "off_percent": 100 * float(np.median(ratio) - 1),
        "within_5_percent_of_all": 100 * float(np.mean(np.abs(ratio / np.median(ratio) - 1) <= 0.05)),
        "sittings_percent": 100 * float(np.sqrt(np.log(measured).var(axis=0, ddof=1).mean())),
    }
    return counts | off | asdict(latency_metrics(measured_ms, *prediction))


def _key(arch: Arch) -> str:
    return json.dumps(dict(arch))


def kept_case(name: str) -> dict[str, dict[str, float]]:
    """Return the result of a case, measured and kept if it is not there, in its own process: OpenVINO leaves memory."""
    if name not in read(KEPT):
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            result = process.submit(measure_case, name).result()
        KEPT.parent.mkdir(parents=True, exist_ok=True)
        write_json(KEPT, read(KEPT) | {name: result})
    return dict(read(KEPT)[name])


def write_budget_page() -> None:
    """Write the page of all cases that were measured."""
    lines = []
    for name, result in read(KEPT).items():
        for minutes, it in result.items():
            counts = f"{it['rows']} | {it['networks']} + {it['checks']}"
            cells = (f"{it[key]:{form}}" for key, form in _SHOWN.items())
            lines.append(f"{name} | {minutes} | {it['seconds']:.0f} | {counts} | {' | '.join(cells)}")
    columns = "family, device | minutes | seconds | rows | networks + checks | sittings % | off by % | mean error %"
    write_page(
        "latency_budget",
        INTRODUCTION,
        table(f"{columns} | within 5 % | within 10 % | without it | Spearman | in interval %", lines),
        _LIMITS,
    )


if __name__ == "__main__":
    for case in sys.argv[1:] or CASES:
        print(case, kept_case(case), flush=True)
    write_budget_page()
