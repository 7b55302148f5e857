import inspect
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from ofa.cli import main
from ofa.pipeline.recipe import Recipe, load_recipe
from ofa.pipeline.run import Run, stages


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
    """A run of the whole main job; copied, never changed."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    run = Run(load_recipe(str(tiny_yaml)), folder)
    for stage in stages().values():
        run.execute(stage, lambda done, total, message: None)
    return folder


@pytest.fixture
def finished(_finished, tmp_path):
    """The directory of a finished run, for this test alone."""
    return Path(shutil.copytree(_finished, tmp_path / "run"))


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs the command line: `command("fit", path)` gives exit code, standard output and standard error."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["ofa", *map(str, arguments)])
        code = 0
        try:
            main()
        except SystemExit as stopped:
            code = stopped.code or 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call


_OF_A_RANK = """
import json, runpy, sys
import torch
from ofa import distributed
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
