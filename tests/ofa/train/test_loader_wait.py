import itertools
import os

import pytest

from ofa.train import loader_wait
from ofa.train.loader_wait import LoaderWait


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on when it is told to: a list with the time in s."""
    now = [100.0]
    monkeypatch.setattr(loader_wait.time, "perf_counter", lambda: now[0])
    return now


def advice_after(clock, n_steps, wait_s, step_s, workers=0, first_s=50.0):
    def batches():
        for i in itertools.count():
            clock[0] += wait_s if i else first_s
            yield i

    wait = LoaderWait(workers)
    for _ in wait.timed(itertools.islice(batches(), n_steps)):
        clock[0] += step_s
    return wait.advice()


def test_the_share_of_waiting_is_said_with_what_to_do(clock):
    assert advice_after(clock, 101, wait_s=0.3, step_s=0.5) == ", data: 37 % of the time, raise data.workers"


@pytest.mark.parametrize(("n_steps", "wait_s"), [(100, 0.1), (9, 10.0)])
def test_short_waiting_and_first_steps_are_not_worth_a_word(clock, n_steps, wait_s):
    assert advice_after(clock, n_steps, wait_s, step_s=0.5) == ""


def test_more_workers_than_processors_are_not_advised(clock):
    advice = advice_after(clock, 101, wait_s=1.0, step_s=0.1, workers=os.cpu_count())
    assert advice.endswith("% of the time, store smaller images")


def test_batches_pass_unchanged():
    assert list(LoaderWait(0).timed(["a", "b"])) == ["a", "b"]
