import os
import signal
import threading

import pytest

from ofa.train.stopping import stop_requested


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_asks_and_handlers_are_put_back(number):
    before = signal.getsignal(number)
    with stop_requested() as asked:
        assert not asked()
        os.kill(os.getpid(), number)
        assert asked()
        assert signal.getsignal(number) == before  # a second one is not held back
    assert signal.getsignal(number) == before


def test_nobody_asks():
    before = signal.getsignal(signal.SIGINT)
    with stop_requested() as asked:
        assert signal.getsignal(signal.SIGINT) != before
    assert not asked()
    assert signal.getsignal(signal.SIGINT) == before


def test_other_threads_cannot_be_asked():
    found = []

    def work():
        with stop_requested() as asked:
            found.append(asked())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [False]
