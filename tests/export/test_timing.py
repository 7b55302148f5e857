from export.timing import time_runs


def test_each_run_is_timed_but_the_first(monkeypatch):
    """Run `k` takes `k` ms, the one that is not timed included."""
    now_ns, runs = [0], []

    def run():
        runs.append(1)
        now_ns[0] += len(runs) * 1_000_000

    monkeypatch.setattr("export.timing.perf_counter_ns", lambda: now_ns[0])
    assert time_runs(run, 3) == [2.0, 3.0, 4.0]
    assert len(runs) == 4
    assert time_runs(run, 0) == []
