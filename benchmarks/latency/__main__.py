"""Predicted against measured latencies: `python -m benchmarks.latency [CASE ...]` writes docs/results/latency.md.

Tables are kept in `runs/benchmark-latency/` and reused. `--again [CASE]` measures one case, by default the first, anew.
"""

import sys
import time

from benchmarks.latency.cases import CASES, load_case
from benchmarks.latency.page import write_latency_page

if __name__ == "__main__":
    names = sys.argv[1:]
    if names[:1] == ["--again"]:
        load_case(names[1] if len(names) > 1 else CASES[0], f"-{time.time():.0f}")
        names = []
    write_latency_page([load_case(name) for name in names or CASES])
