"""The tour of the code names functions that a run really calls, in the order in which it calls them."""

import inspect
import re
import sys
import threading
from pathlib import Path

from ofa.pipeline.recipe_file import load_recipe
from ofa.pipeline.run import Run
from ofa.pipeline.stage import all_stages

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "tour.md").read_text()
PARTS = [re.findall(r"\| `([\w.]+)` \| `([\w/]+\.py)` \|", part) for part in PAGE.split("\n## ")[1:]]


def code_of(function, file):
    """The code object of a function or method, found by name in the source."""
    module = inspect.importlib.import_module(file.removesuffix(".py").replace("/", "."))
    found = module
    for name in function.split("."):
        found = getattr(found, name)
    return inspect.unwrap(found).__code__


def test_the_page_has_the_three_ways():
    assert [len(part) >= 6 for part in PARTS] == [True] * 3


def test_a_run_calls_the_functions_of_each_part_in_the_order_of_the_page(tmp_path, tiny_recipe_text):
    (tmp_path / "tiny.yaml").write_text(tiny_recipe_text)
    steps, calls = {code_of(*step): step for part in PARTS for step in part}, []

    def note(frame, event, argument):  # noqa: ARG001
        step = steps.get(frame.f_code)
        if step is not None and calls[-1:] != [step]:
            calls.append(step)

    previous = sys.gettrace()
    threading.settrace(note)
    sys.settrace(note)
    try:
        run = Run(load_recipe(str(tmp_path / "tiny.yaml")), tmp_path / "run")
        run.check_inputs()
        for stage in all_stages().values():
            run.execute(stage, lambda done, total, message: None)
    finally:
        sys.settrace(previous)
        threading.settrace(previous)
    for part in PARTS:
        later = iter(calls[calls.index(part[0]) :])
        assert [step for step in part if step not in later] == []  # `in` advances to the step


def test_every_file_of_the_page_is_as_it_says():
    for function, file in (step for part in PARTS for step in part):
        assert Path(code_of(function, file).co_filename) == ROOT / file
