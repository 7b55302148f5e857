import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from export.ready_levels import ReadyLevels


class Models:
    """Loaded levels are objects that count how often each was loaded, and by which thread."""

    def __init__(self):
        self.loads, self.threads = [], set()

    def load(self, level):
        self.loads.append(level)
        self.threads.add(threading.current_thread())
        return f"model {level}"


def wait_for(levels, expected):
    for _ in range(2000):
        if levels.levels == expected:
            return
        time.sleep(0.005)
    assert levels.levels == expected


def test_without_neighbors_only_the_latest_level_is_kept():
    models = Models()
    levels = ReadyLevels(models.load, 5, neighbors=False)
    assert levels.levels == ()
    for level in (0, 4, 2, 2):
        assert levels[level] == f"model {level}"
        assert levels.levels == (level,)
    assert models.loads == [0, 4, 2]
    assert models.threads == {threading.current_thread()}


def test_neighbors_are_loaded_by_another_thread_and_a_switch_to_one_loads_nothing():
    models = Models()
    levels = ReadyLevels(models.load, 5, neighbors=True)
    for level, ready, loads in (
        (1, (0, 1, 2), [1, 0, 2]),
        (2, (1, 2, 3), [1, 0, 2, 3]),
        (1, (0, 1, 2), [1, 0, 2, 3, 0]),
        (4, (3, 4), [1, 0, 2, 3, 0, 4, 3]),
    ):
        assert levels[level] == f"model {level}"
        wait_for(levels, ready)
        assert models.loads == loads
    assert len(models.threads) == 2
    levels.close()
    assert levels.levels == ()


def test_a_neighbor_that_cannot_be_loaded_raises_only_when_it_is_asked_for():
    def load(level):
        if level == 0:
            raise RuntimeError("broken")
        return level

    levels = ReadyLevels(load, 3, neighbors=True)
    assert levels[1] == 1
    wait_for(levels, (1, 2))
    with pytest.raises(RuntimeError, match="broken"):
        levels[0]
    assert levels[2] == 2
    wait_for(levels, (1, 2))
    levels.close()


def test_a_neighbor_of_a_level_that_is_no_longer_the_latest_is_released():
    loading, go_on = threading.Event(), threading.Event()

    def load(level):
        if level == 1:
            loading.set()
            assert go_on.wait(timeout=20)
        return level

    levels = ReadyLevels(load, 9, neighbors=True)
    levels[0]
    assert loading.wait(timeout=20)
    assert levels[5] == 5
    go_on.set()
    wait_for(levels, (4, 5, 6))
    levels.close()


def test_a_level_that_is_loaded_while_all_are_closed_is_released():
    loading, go_on = threading.Event(), threading.Event()

    def load(level):
        if level == 1:
            loading.set()
            assert go_on.wait(timeout=20)
        return level

    levels = ReadyLevels(load, 2, neighbors=True)
    levels[0]
    assert loading.wait(timeout=20)
    levels.close()
    go_on.set()
    levels._loader.shutdown(wait=True)
    assert levels.levels == ()


def test_many_threads_get_the_level_that_they_ask_for():
    levels = ReadyLevels(Models().load, 6, neighbors=True)
    with ThreadPoolExecutor(4) as pool:
        order = [(7 * i) % 6 for i in range(200)]
        assert list(pool.map(levels.__getitem__, order)) == [f"model {level}" for level in order]
    levels.close()
