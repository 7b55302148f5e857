import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

import ofa
from export.agent.config import Limits
from export.agent.process import WorkerProcess
from export.http_server import RefusedError

PACKAGES = Path(ofa.__file__).parents[1]


@pytest.fixture
def worker():
    process = WorkerProcess(Limits(max_seconds=20))
    yield process
    process.close()


def test_a_worker_answers_refuses_and_is_closed(worker, lab):
    name = worker.ask({"do": "load"}, lab.small())["model"]
    assert len(worker.ask({"do": "run", "model": name, "n": 3})["milliseconds"]) == 3
    with pytest.raises(RefusedError, match="is not loaded; send it by POST /models") as caught:
        worker.ask({"do": "run", "model": "x", "n": 1})
    assert caught.value.status == 404
    process = worker._process
    worker.close()
    assert process.returncode is not None
    with pytest.raises(RefusedError, match="the agent is being closed; use another"):
        worker.ask({"do": "forget"})


def test_what_the_runtime_prints_is_not_an_answer(worker, lab, capfd):
    with pytest.raises(RefusedError, match="ONNX Runtime cannot load the model"):
        worker.ask({"do": "load"}, lab.model(lab.node("Nonsense")))
    assert worker.ask({"do": "forget"}) == {"forgotten": 0}
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("name", ["export.py", "numpy.py", "export/__init__.py", "export/agent/worker.py"])
def test_files_of_the_user_in_the_working_directory_are_not_imported(name, tmp_path):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("raise SystemExit('the file of the user was imported')")
    program = (
        "from export.agent.config import Limits; from export.agent.process import WorkerProcess; "
        "worker = WorkerProcess(Limits()); print(worker.ask({'do': 'forget'})); worker.close()"
    )
    environment = os.environ | {"PYTHONPATH": str(PACKAGES)}
    command = [sys.executable, "-P", "-c", program]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("{'forgotten': 0}\n", "")


def test_runs_that_take_too_long_are_cut_off_and_the_model_is_kept(agent, lab):
    many = lab.load(agent.port, lab.slow(1))[1]["model"]
    deep = lab.load(agent.port, lab.slow(2000))[1]["model"]
    for name, n in ((many, 10_000), (deep, 1)):
        status, answer = lab.run(agent.port, name, n)
        assert (status, answer["error"].split(";")[0]) == (422, "that took more than 1 s")
    assert lab.run(agent.port, many)[0] == 200


def test_an_operator_that_does_not_end_is_killed_with_the_worker(agent, lab):
    name = lab.load(agent.port, lab.small())[1]["model"]
    worker = lab.worker_of(agent.process)
    worker.send_signal(signal.SIGSTOP)  # like one operator that computes for hours
    status, answer = lab.run(agent.port, name)
    assert (status, answer["error"].split(";")[0]) == (422, "that took more than 1 s")
    assert not worker.is_running()
    assert lab.run(agent.port, name)[0] == 404
    lab.assert_it_works(agent.port)


def test_a_runtime_that_crashes_is_started_again(agent, lab):
    name = lab.load(agent.port, lab.slow(2000))[1]["model"]
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(lab.run, agent.port, name)
        time.sleep(0.3)
        lab.worker_of(agent.process).kill()
        status, answer = running.result(timeout=20)
    assert (status, answer["error"]) == (503, "ONNX Runtime ended and all models are dropped; send them again")
    assert lab.run(agent.port, name)[0] == 404
    lab.assert_it_works(agent.port)
    worker = lab.worker_of(agent.process)
    worker.kill()
    deadline = time.monotonic() + 20
    while (worker.status() != psutil.STATUS_ZOMBIE or worker.num_threads() > 1) and time.monotonic() < deadline:
        time.sleep(0.001)
    lab.assert_it_works(agent.port)
