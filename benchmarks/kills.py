"""Kill a run ten times: `python -m benchmarks.kills [RUN_DIR]` writes docs/results/kills.md.

Takes the run of `python -m benchmarks.fleet`, makes it once more from its latency tables, killed by SIGKILL at random
moments and resumed, and compares.
"""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import yaml

import ofa
from benchmarks.fleet import SHARED, hashes
from benchmarks.page import write_page
from ofa.pipeline.run import Run

N_KILLS, START_SECONDS = 10, 10.0
INTRODUCTION = """
# Killed and resumed

This page shows whether a run that is killed again and again ends as one that never was: the recipe `fleet`, with the
latency tables of the undisturbed run, as two measurements of one device differ.

Made by `python -m benchmarks.kills`.
"""


def main(folder: Path) -> None:
    """Kill, resume, compare, and write the page."""
    run = ofa.open_run(folder)
    write_page("kills", INTRODUCTION, *_kills(run, np.random.default_rng(9)))


def _kills(run: Run, rng: np.random.Generator) -> list[str]:
    """Make the run once more from its latency tables, killed again and again, and compare."""
    recipe, folder = run.folder.with_name("killed.yaml"), run.folder.with_name("killed")
    content = run.recipe.model_dump(mode="json", exclude_unset=True)
    names = [config["name"] for config in content["targets"]]
    for config in content["targets"]:
        target = run.target(config["name"])
        config["table"] = str(target.table_path(target.precisions[0]).resolve())
    recipe.write_text(yaml.safe_dump(content))
    shutil.rmtree(folder, ignore_errors=True)
    records = [run.records(), *(run.target(name).records() for name in names)]
    seconds = sum(record["seconds"] for part in records for stage, record in part.items() if stage != "profile")
    command = [sys.executable, "-m", "ofa", "run", str(recipe), "--run", str(folder), "--resume"]
    n_killed = 0
    for share in rng.uniform(0.0, 1.2, N_KILLS):  # over the run, which takes less time with tables than without
        try:
            subprocess.run(command, check=True, timeout=START_SECONDS + share * seconds / N_KILLS)
        except subprocess.TimeoutExpired:  # of SIGKILL
            n_killed += 1
    subprocess.run(command, check=True)
    killed = ofa.open_run(folder)
    assert hashes(folder) == hashes(run.folder), "other weights; were both runs made with as many threads?"
    for name in names:
        archs, expected = ({repr(dict(level.arch)) for level in one.target(name).levels} for one in (killed, run))
        assert archs == expected, name
    return [
        f"The run was made once more from the same latency tables, and killed by SIGKILL at {n_killed} random moments: "
        f"{', '.join(SHARED)} are the same, byte by byte, and so are the archs of all levels of {', '.join(names)}.",
    ]


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "runs/fleet"))
