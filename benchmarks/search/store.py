"""Results in docs/results/search/, kept by key, so that an interrupted benchmark resumes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.jobs import read
from ofa.core.files import write_json

FOLDER = Path("docs/results/search")


def kept(part: str, key: str, measure: Callable[[], Any]) -> Any:
    """Return the result of a key of `docs/results/search/PART.json`, measured and written if it is not there."""
    path = FOLDER / f"{part}.json"
    results = read(path)
    if key not in results:
        results[key] = measure()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, results)
        print(f"{part}: {key}", flush=True)
    return results[key]
