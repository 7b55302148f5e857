"""The cases of the latency benchmark: families and devices, how they are measured, and where the tables are kept."""

import json
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.latency.chromium import open_page
from ofa import LatencyTable, create_family
from ofa.cost.latency.profile import TableConfig, profile
from ofa.devices.estimator import Burst, Samples
from ofa.devices.registry import create_device

FOLDER = Path("runs/benchmark-latency")
MANY = TableConfig(networks=200, checks=200)
MIXED = TableConfig(networks=300, checks=200)  # two kinds of blocks, which int8 and OpenVINO fuse differently
LARGE = TableConfig(networks=180, checks=100, weights_mib=10240)  # in one group
SLOW = TableConfig(networks=120, checks=100, weights_mib=10240)  # quantizing a transformer takes longer than timing it
BIG = TableConfig(networks=100, checks=100, weights_mib=6144)  # OpenVINO takes 3.3 times as much memory
PATIENT = TableConfig(networks=200, checks=150, max_rounds=120)  # whatever disturbs one of two threads delays a run
USUAL = TableConfig(checks=100)
PAGE = TableConfig(checks=100, weights_mib=256)  # a page keeps 512 MiB of files
FAMILIES: dict[str, dict[str, Any]] = {
    "small_mobilenet_v3": {},
    "hybrid_small": {},
    "autoformer_tiny": {"resolutions": [96, 128, 160]},
}
CONFIGS = {
    "hybrid_small": MIXED,
    "autoformer_tiny": LARGE,
    "small_mobilenet_v3, 2 threads": PATIENT,
    "hybrid_small, 2 threads": PATIENT,
    "autoformer_tiny, int8 dynamic": SLOW,
    "autoformer_tiny, openvino": BIG,
    **dict.fromkeys(("browser", "ncnn", "litert", "executorch"), USUAL),
    "autoformer_tiny, browser": PAGE,
}
"""Settings of families, devices and cases, of which the last one counts; the others have `MANY`."""
DEVICES: dict[str, tuple[str, dict[str, Any]]] = {
    "1 thread": ("ort-cpu", {"threads": 1}),
    "2 threads": ("ort-cpu", {"threads": 2}),
    "int8 static": ("ort-cpu", {"threads": 1, "precision": "int8_static"}),
    "int8 dynamic": ("ort-cpu", {"threads": 1, "precision": "int8_dynamic"}),
    "openvino": ("openvino-cpu", {"threads": 1}),
    "mnn": ("mnn-cpu", {"threads": 1}),
    "browser": ("browser", {"threads": 1}),
    "ncnn": ("ncnn-cpu", {"threads": 1}),
    "litert": ("litert-cpu", {"threads": 1}),
    "executorch": ("executorch-cpu", {"threads": 1}),
}
RUNTIMES = ("mnn", "browser", "ncnn", "litert", "executorch")
"""Devices of a page of their own, `benchmarks.latency.runtimes`."""
_OTHER_INT8 = {"small_mobilenet_v3": "int8 dynamic", "hybrid_small": "int8 dynamic", "autoformer_tiny": "int8 static"}
CASES = [f"{name}, {device}" for name in FAMILIES for device in DEVICES if device not in (_OTHER_INT8[name], *RUNTIMES)]


@dataclass(frozen=True)
class Case:
    """A family on a device: its table, the samples behind it, and the minutes that they took."""

    name: str
    table: LatencyTable
    samples: Samples
    minutes: float


def load_case(name: str, suffix: str = "") -> Case:
    """Load a case, which is measured first if need be, in its own process, as OpenVINO leaves memory mapped behind."""
    path = FOLDER / f"{stem(name)}{suffix}.json"
    if not path.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        with ProcessPoolExecutor(1, get_context("spawn")) as process:
            process.submit(_measure, name, path).result()
    content = json.loads(path.with_suffix(".samples.json").read_text())["samples"]
    samples = {model: [Burst(*burst) for burst in bursts] for model, bursts in content.items()}
    return Case(name, LatencyTable.load(path), samples, float(path.with_suffix(".minutes").read_text()))


def _measure(name: str, path: Path) -> None:
    family_name, device_name = name.split(", ")
    family, (device, options) = create_family(family_name, **FAMILIES[family_name]), DEVICES[device_name]
    config = next((CONFIGS[key] for key in (name, device_name, family_name) if key in CONFIGS), MANY)
    begin = time.monotonic()
    samples_path = path.with_suffix(".samples.json")
    rng = np.random.default_rng(0)
    with open_page() if device == "browser" else nullcontext():
        table = profile(family, create_device(device, **options), rng, config=config, samples_path=samples_path)
    minutes = (time.monotonic() - begin) / 60
    path.with_suffix(".minutes").write_text(str(minutes))
    table.save(path)
    print(name, f"{minutes:.1f} minutes", table.evaluate(), flush=True)


def stem(name: str) -> str:
    return name.replace(", ", "-").replace(" ", "_")
