import fcntl
import inspect
import json
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import yaml

from ofa.cost.counted import count_macs
from ofa.devices.device import HostLost
from ofa.pipeline.recipe import Recipe
from ofa.pipeline.recipe_file import load_recipe
from ofa.pipeline.run import Run
from ofa.pipeline.stage import all_stages


@pytest.fixture(scope="session")
def tiny_recipe(tiny_recipe_text):
    return Recipe.model_validate(yaml.safe_load(tiny_recipe_text))


@pytest.fixture(scope="session")
def tiny_yaml(tiny_recipe_text, tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    path.write_text(tiny_recipe_text)
    return path


@pytest.fixture(scope="session")
def _finished(tiny_yaml, tmp_path_factory):
    """A run of the whole main job, made by one test process for all; copied, never changed."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder = shared / "finished"
    with (shared / "finished.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        run = Run(load_recipe(str(tiny_yaml)), folder)
        for stage in all_stages().values():
            if not run.finished(stage):
                run.execute(stage, lambda done, total, message: None)
    return folder


@pytest.fixture
def finished(_finished, tmp_path):
    """The directory of a finished run, for this test alone."""
    return Path(shutil.copytree(_finished, tmp_path / "run"))


_OF_A_RANK = """
import json, runpy, sys
import torch
from ofa.core import distributed
path, name, arguments = sys.argv[1:]
torch.set_num_threads(1)
with distributed.joined():
    print(json.dumps(runpy.run_path(path)[name](*json.loads(arguments))))
"""


@pytest.fixture
def together():
    """Runs a function of the test's file in several processes that work together: `together(2, function, 3)`.

    Arguments and results are JSON; gives the result of each process.
    """

    def call(n, function, *arguments):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        environment = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(n)}
        command = [
            sys.executable,
            "-c",
            _OF_A_RANK,
            inspect.getfile(function),
            function.__name__,
            json.dumps(arguments),
        ]
        processes = [
            subprocess.Popen(
                command,
                env=environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in range(n)
        ]
        try:
            ended = [process.communicate(timeout=200) for process in processes]
        finally:
            for process in processes:
                process.kill()
        assert all(process.returncode == 0 for process in processes), "\n".join(error for _, error in ended)
        return [json.loads(out.splitlines()[-1]) for out, _ in ended]

    return call


OVERHEAD_MS = 0.05


@dataclass
class PretendHost:
    """A host whose run times follow from the model, a drift and noise, and which may die.

    Attributes:
        milliseconds: `milliseconds(module, input_shape)`, the time of a run.
        noise: standard deviation of the logarithm of a run's time.
        speed: factor of all times by the number of bursts so far.
        lasts: bursts before the host dies.
        seed: seed of the noise.
        n_bursts: bursts so far.
        loaded: models in the order in which they were loaded.
        visits: index in `loaded` of the model of each burst.
        n_runs: runs of each burst.
    """

    milliseconds: object
    noise: float = 0.0
    speed: object = staticmethod(lambda n_bursts: 1.0)
    lasts: float = float("inf")
    seed: int = 0
    n_bursts: int = 0
    loaded: list = field(default_factory=list)
    visits: list = field(default_factory=list)
    n_runs: list = field(default_factory=list)

    def __post_init__(self):
        self.rng = np.random.default_rng(self.seed)

    def load(self, model):
        module = model.module()
        assert not module.training
        self.loaded.append(model)
        index, true_ms = len(self.loaded) - 1, self.milliseconds(module, model.input_shape)

        def run(n):
            self.n_bursts += 1
            if self.n_bursts > self.lasts:
                raise HostLost("the host died")
            self.visits.append(index)
            self.n_runs.append(n)
            return list(true_ms * self.speed(self.n_bursts) * np.exp(self.noise * self.rng.standard_normal(n)))

        return run


@dataclass
class PretendDevice:
    hosts: list
    name: str = "pretend"
    description: dict = field(default_factory=lambda: {"device": "pretend", "threads": 1})


def by_macs(module, shape):
    """The overhead and a nanosecond per multiply-accumulate, so that a network takes as long as its blocks together."""
    return OVERHEAD_MS + count_macs(module, shape) * 1e-6


@pytest.fixture(scope="session")
def host():
    """Create a pretend host: `host(milliseconds, noise=0.1)`; by default its times follow from the MACs."""
    return lambda milliseconds=by_macs, **options: PretendHost(milliseconds, **options)


@pytest.fixture(scope="session")
def pretend(host):
    """Create a pretend device from some hosts, by default from one."""
    return lambda *hosts: PretendDevice(list(hosts) or [host()])
