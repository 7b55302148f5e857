"""Latency tables of other runtimes: `python -m benchmarks.latency.runtimes [CASE ...]`.

Writes docs/results/latency_runtimes.md, which shows the cases that were measured; tables are kept as those of
`benchmarks.latency`. `--again CASE` measures one anew. The browser is headless Chromium on this computer, with
onnxruntime-web from `make web`.
"""

import sys
import time
from collections.abc import Sequence

import numpy as np
from scipy.stats import kendalltau, spearmanr

from benchmarks.latency.cases import FAMILIES, FOLDER, RUNTIMES, Case, load_case, stem
from benchmarks.latency.page import accuracy, repeats
from benchmarks.page import table, write_page

NATIVE = "1 thread"
CASES = [
    f"{family}, {device}"
    for family in FAMILIES
    for device in RUNTIMES
    if device != "ncnn" or family == "small_mobilenet_v3"  # which has no attention
]
INTRODUCTION = """
# Latency tables of other runtimes

`python -m benchmarks.latency.runtimes` writes this page; its columns are those of [latency.md](latency.md). `browser`
is onnxruntime-web (wasm, one thread) in headless Chromium, which opened the link of `ofa serve`; the others are MNN,
ncnn, LiteRT and ExecuTorch. All ran on this computer, with one thread.
"""


def main(names: Sequence[str]) -> None:
    for name in names:
        load_case(name)
    cases = [load_case(name) for name in CASES if (FOLDER / f"{stem(name)}.json").exists()]
    write_page("latency_runtimes", INTRODUCTION, accuracy(cases), *_against_native(cases), *repeats(cases))


def _against_native(cases: Sequence[Case]) -> list[str]:
    """Compare how networks rank with their ranks by ONNX Runtime on one thread."""
    lines = []
    for case in cases:
        native = load_case(f"{case.table.family.name}, {NATIVE}").table.latency_ms()
        other = case.table.latency_ms()
        common = [arch for arch in other if arch in native]
        times_ms = np.array([[other[arch], native[arch]] for arch in common])
        ratios = times_ms[:, 0] / times_ms[:, 1]
        lines.append(
            f"{case.name} | {len(common)} | {np.median(ratios):.2f} | {np.min(ratios):.2f} to {np.max(ratios):.2f} "
            f"| {spearmanr(*times_ms.T).statistic:.4f} | {kendalltau(*times_ms.T).statistic:.3f}"
        )
    intro = "Networks that were measured on both, this runtime's time divided by that of ONNX Runtime on one thread."
    columns = "family, device | networks | times ONNX Runtime's, median | range | Spearman | Kendall"
    return ["## Against ONNX Runtime", intro, table(columns, lines)]


if __name__ == "__main__":
    if sys.argv[1:2] == ["--again"]:
        load_case(sys.argv[2], f"-{time.time():.0f}")
        main([])
    else:
        main(sys.argv[1:] or CASES)
