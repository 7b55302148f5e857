"""Other runtimes' files against PyTorch: `python -m benchmarks.runtimes [FORMAT ...]` writes docs/results/runtimes.md.

The networks are those of `benchmarks.parity`. Rows are kept in docs/results/runtimes.json; remove one to measure it
anew. A format takes 10 to 90 minutes on one core.
"""

import json
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.page import RESULTS, table, write_page
from benchmarks.parity import MAX_RESOLUTION, N_ARCHS, STEPS, networks
from export.formats.onnx import Parity, compare
from ofa.core.errors import DeviceError
from ofa.core.files import write_json
from ofa.data.config import DataConfig
from ofa.data.dataset import Data
from ofa.data.load import load_data
from ofa.devices.format import create_format

PRECISIONS = {
    "onnx": ("int8_static",),
    "mnn": ("float32",),
    "ncnn": ("float32",),
    "litert": ("float32", "int8_static"),
    "executorch": ("float32", "int8_static"),
}
"""By format; ONNX for comparison, as networks that were trained so little lose much in 8 bits."""
FAMILIES = ("small_mobilenet_v3", "hybrid_small", "autoformer_tiny")
KEPT = RESULTS / "runtimes.json"
RANGE_IMAGES = 64
HEADER = (
    "format | precision | family | converted | largest difference of a logit | median over archs | largest logit "
    "| same top-1, worst arch | mean"
)
INTRODUCTION = f"""
# Files of other runtimes against PyTorch

Made by `python -m benchmarks.runtimes`: {N_ARCHS} random archs of each family at no more than {MAX_RESOLUTION} pixels
where it has such, trained for {STEPS} steps, converted, on the whole digits test split.

MNN approximates GELU, which alone is off by up to 5e-4: a transformer differs by more than `export.max_abs_diff`
allows by default, and is refused as a float32 level unless that is raised and every class stays the same.

Networks that were trained so little have classes close to each other, so that 8 bits change many: compare a format
with ONNX.
"""


def main(formats: list[str]) -> None:
    data = load_data(DataConfig(name="digits"))
    kept: dict[str, dict[str, Any]] = json.loads(KEPT.read_text()) if KEPT.exists() else {}
    for name in formats:
        for precision in PRECISIONS[name]:
            for family in FAMILIES:
                key = f"{name}, {precision}, {family}"
                if key not in kept:
                    kept[key] = measured(name, precision, family, data)
                    write_json(KEPT, kept)
                    print(key, kept[key], flush=True)
    keys = [f"{name}, {one}, {family}" for name, all_of in PRECISIONS.items() for one in all_of for family in FAMILIES]
    there = [key for key in keys if key in kept]
    rows = [" | ".join((*key.split(", "), kept[key]["cells"])) for key in there]
    errors = [f"- {key}, {n} of {N_ARCHS}: {error}" for key in there for error, n in kept[key]["refused"].items()]
    refusals = "\n".join(errors) if errors else "None was refused."
    write_page("runtimes", INTRODUCTION, table(HEADER, rows), "What was refused, and why:", refusals)


def measured(format_name: str, precision: str, family: str, data: Data) -> dict[str, Any]:
    """Return the last cells of a row, and how often each message refused a network."""
    model_format, parities, refused = create_format(format_name), list[Parity](), Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"model{model_format.suffix}")
        for network, shape, images in networks(family, data):
            samples = np.concatenate([batch.numpy() for batch in images])[:RANGE_IMAGES]
            try:
                model_format.write(network, shape, path, precision=precision, images=samples, metadata={})
                parities.append(compare(model_format.load(path), network, images))
            except DeviceError as error:
                refused[str(error)] += 1
    cells = " |  |  |  | "
    if parities:
        diffs, same = [one.max_abs_diff for one in parities], [100 * one.same_top1 for one in parities]
        largest = max(parity.max_abs_logit for parity in parities)
        cells = f"{max(diffs):.1e} | {np.median(diffs):.1e} | {largest:.1f} | {min(same):.1f}% | {np.mean(same):.1f}%"
    return {"cells": f"{len(parities)} of {N_ARCHS} | {cells}", "refused": dict(refused)}


if __name__ == "__main__":
    main(sys.argv[1:] or list(PRECISIONS))
