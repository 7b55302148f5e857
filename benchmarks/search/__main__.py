"""Judge search and prediction on published tables and write their pages.

`python -m benchmarks.search --tables DIR [--seeds 10]`; about six hours on one core. Results are stored in
docs/results/search/, so an interrupted benchmark resumes; remove the files to measure anew.
"""

import argparse
from pathlib import Path

from benchmarks.search import devices, fronts, predictors, queries, speed
from benchmarks.search.page import write_search_page
from benchmarks.search.predictors_page import write_predictors_page


def main() -> None:
    """Measure what is missing; write the page in any case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tables", type=Path, required=True, help="folder of the published tables")
    parser.add_argument("--seeds", type=int, default=10)
    arguments = parser.parse_args()
    seeds = range(arguments.seeds)
    if not arguments.tables.is_dir():
        parser.error(f"--tables {arguments.tables} is no folder; name the one that holds the published tables")
    try:
        speed.measure()
        predictors.measure(arguments.tables, seeds)
        devices.measure(arguments.tables, seeds)
        queries.measure(arguments.tables, seeds)
        fronts.measure(arguments.tables, seeds)
    finally:
        write_search_page(seeds)
        write_predictors_page(seeds)


if __name__ == "__main__":
    main()
