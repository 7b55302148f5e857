"""Measure how large data sets are read: `python -m benchmarks.data [PART ...]` writes docs/results/data.md.

The parts are `memory`, `files` and `loading`, by default all of them. Their images are made first, under runs/data: 8
GB and an hour on 2 cores. Results are kept in docs/results/data.json; parts that are not named keep theirs.
"""

import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks.data import loading, many_files, memory
from benchmarks.jobs import read
from benchmarks.page import RESULTS, write_page
from ofa.core.files import write_json

FOLDER = Path("runs/data")
PARTS: dict[str, tuple[Callable[..., object], Callable[..., list[str]]]] = {
    "memory": (memory.measure, memory.section),
    "files": (many_files.measure, many_files.section),
    "loading": (loading.measure, loading.section),
}
INTRODUCTION = """
# Data

How large data sets are read. Made by `make bench-data`.
"""


def main(names: list[str]) -> None:
    results = RESULTS / "data.json"
    for name in names or PARTS:
        measure, _ = PARTS[name]
        write_json(results, read(results) | {name: measure(FOLDER)})
    measured = read(results)
    write_page(
        "data",
        INTRODUCTION,
        *(part for name, (_, section) in PARTS.items() if name in measured for part in section(measured[name])),
    )


if __name__ == "__main__":
    main(sys.argv[1:])
