import subprocess
import sys

import pytest

from ofa.core.errors import RunError
from ofa.pipeline.lock import locked

HOLDER = """
import sys, time
from pathlib import Path
from ofa.pipeline.lock import locked
with locked(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of the folder."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, tmp_path], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "locked\n"
    yield process
    process.kill()
    process.communicate()


def test_a_second_process_is_refused_while_the_first_lives(tmp_path, holder):
    with pytest.raises(RunError, match=rf"process {holder.pid} is working on .*; wait until it ends"), locked(tmp_path):
        pass


def test_a_killed_process_does_not_lock_for_ever(tmp_path, holder):
    holder.kill()
    holder.wait()
    for _ in range(2):
        with locked(tmp_path):
            assert (tmp_path / ".lock").read_text().isdigit()
