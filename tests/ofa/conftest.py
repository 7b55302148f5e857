import shutil
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
