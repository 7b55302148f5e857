"""Start a training on a folder and stop it at the first step: a process of its own, which imports what it needs only.

`python -m benchmarks.data.first_step FOLDER STARTED` prints times in s, from the time STARTED on, and memory in bytes.
"""

import json
import multiprocessing
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import ofa

OPTIONS = {"num_classes": 100, "resolutions": [32], "width_mult": 0.25}
BATCH_SIZE, WORKERS = 64, 2


def main(folder: Path, started: float) -> None:
    """Load the data set, train one step, and print the result."""
    supernet = ofa.Supernet(ofa.create_family("small_mobilenet_v3", **OPTIONS))
    data_config = ofa.DataConfig(name="image_folder", folder=folder)
    config = ofa.TrainConfig.model_validate(
        {"batch_size": BATCH_SIZE, "phases": [{"strategy": "sandwich", "epochs": 1}]}
    )
    before, start = _memory("self", "Rss"), time.time()
    data = ofa.load_data(data_config)
    result = {"imports_s": start - started, "load_s": time.time() - start, "list": _memory("self", "Rss") - before}

    def stop(*_: object) -> None:
        result["first_step_s"] = time.time() - started
        workers = [str(process.pid) for process in multiprocessing.active_children()]
        result["worker"] = max(_memory(pid, "Private_Clean") + _memory(pid, "Private_Dirty") for pid in workers)
        raise InterruptedError

    with suppress(InterruptedError), tempfile.TemporaryDirectory() as run:
        ofa.train(supernet, data, config, folder=Path(run), workers=WORKERS, on_progress=stop)
    print(json.dumps(result))


def _memory(pid: str, kind: str) -> int:
    """Return memory of a process in bytes, as Linux counts it."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{kind}:"))


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
