"""Measure how large data sets are read and write the page: `python -m benchmarks.data [IMAGES]`.

50,000 images by default, which are made first, under runs/data: 1.5 GB, and an hour on 2 cores.
"""

import sys
from pathlib import Path

from benchmarks.data.memory import memory_section
from benchmarks.data.pictures import jpeg_folder
from benchmarks.page import write_page

N_IMAGES, N_SUBNETS = 50_000, 20
INTRODUCTION = """
# Data

How large data sets are read. Made by `make bench-data`.
"""


def main(n_images: int) -> None:
    folder = jpeg_folder(Path("runs/data"), n_images)
    write_page("data", INTRODUCTION, *memory_section(folder, n_images, N_SUBNETS))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else N_IMAGES)
