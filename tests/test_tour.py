"""The tour of the code names functions that a run really calls, in the order in which it calls them."""

import functools
import importlib
import inspect
import re
import sys
from pathlib import Path

import pytest

from ofa.pipeline import recipe_file
from ofa.pipeline.run import Run
from ofa.pipeline.stage import all_stages

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "tour.md").read_text()
PARTS = [re.findall(r"\| `([\w.]+)` \| `([\w/]+\.py)` \|", part) for part in PAGE.split("\n## ")[1:]]


def find(function, file):
    """Return a function or method and what holds it, a module or a class."""
    holder = importlib.import_module(file.removesuffix(".py").replace("/", "."))
    *classes, name = function.split(".")
    for part in classes:
        holder = getattr(holder, part)
    return getattr(holder, name), holder


def test_the_page_has_the_three_ways():
    assert [len(part) >= 6 for part in PARTS] == [True] * 3


@pytest.mark.slow
def test_a_run_calls_the_functions_of_each_part_in_the_order_of_the_page(tmp_path, tiny_recipe_text, monkeypatch):
    (tmp_path / "tiny.yaml").write_text(tiny_recipe_text.replace("[12, 16]", "[12]"))  # half as many blocks
    calls = []

    def noting(step, function):
        @functools.wraps(function)
        def call(*args, **kwargs):
            if calls[-1:] != [step]:
                calls.append(step)
            return function(*args, **kwargs)

        return call

    all_stages()  # imports every module that a run may use
    for step in dict.fromkeys(step for part in PARTS for step in part):
        function, holder = find(*step)
        users = [module for module in sys.modules.values() if vars(module).get(step[0]) is function]
        for user in [holder, *users]:
            monkeypatch.setattr(user, step[0].rpartition(".")[2], noting(step, function))
    run = Run(recipe_file.load_recipe(str(tmp_path / "tiny.yaml")), tmp_path / "run")
    run.check_inputs()
    for stage in all_stages().values():
        run.execute(stage, lambda done, total, message: None)
    for part in PARTS:
        later = iter(calls[calls.index(part[0]) :])
        assert [step for step in part if step not in later] == []  # `in` advances to the step


def test_every_file_of_the_page_is_as_it_says():
    for function, file in (step for part in PARTS for step in part):
        assert Path(inspect.unwrap(find(function, file)[0]).__code__.co_filename) == ROOT / file
