"""Tests of the jobs: a supernet's weights are trained once, also where only its result was kept."""

from concurrent.futures import ThreadPoolExecutor

import ofa
from benchmarks.inherited import jobs
from benchmarks.inherited.tasks import TASKS


def test_weights_that_are_missing_are_trained_once(tmp_path, monkeypatch):
    trained = []

    def train(task, supernet, config, folder, seed):  # noqa: ARG001
        trained.append((task, len(config.phases), folder, seed))

    monkeypatch.setattr(jobs, "RUNS", tmp_path)
    monkeypatch.setattr(jobs, "_train", train)
    with ThreadPoolExecutor(2) as pool:
        paths = list(pool.map(lambda _: jobs._trained_supernet("cnn", "spread", 3), range(2)))
    assert paths[0] == paths[1]
    assert trained == [("cnn", 1, paths[0].parent, 3)]
    loaded, fresh = ofa.Supernet.load(paths[0], TASKS["cnn"].family), ofa.Supernet(TASKS["cnn"].family, seed=3)
    assert all((a == b).all() for a, b in zip(loaded.parameters(), fresh.parameters(), strict=True))
