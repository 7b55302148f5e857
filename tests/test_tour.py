"""The tour of the code names functions that a run really calls, in the order in which it calls them."""

import inspect
import re
import sys
import threading
from pathlib import Path

import pytest

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


@pytest.fixture(scope="module")
def first_calls(tmp_path_factory, tiny_recipe_text):
    """When each function of the page was called first in a run of all stages."""
    folder = tmp_path_factory.mktemp("tour")
    (folder / "tiny.yaml").write_text(tiny_recipe_text)
    wanted, calls = {code_of(*step) for part in PARTS for step in part}, {}

    def note(frame, event, argument):  # noqa: ARG001
        if event == "call" and frame.f_code in wanted:
            calls.setdefault(frame.f_code, len(calls))

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        run = Run(load_recipe(str(folder / "tiny.yaml")), folder / "run")
        run.check_inputs()
        for stage in all_stages().values():
            run.execute(stage, lambda done, total, message: None)
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return calls


def test_the_page_has_the_three_ways():
    assert [len(part) >= 6 for part in PARTS] == [True] * 3


@pytest.mark.parametrize("part", PARTS, ids=["supernet", "latency", "file"])
def test_functions_are_called_in_the_order_of_the_page(first_calls, part):
    codes = [code_of(*step) for step in part]
    assert [step for step, code in zip(part, codes, strict=True) if code not in first_calls] == []
    order = [first_calls[code] for code in codes]
    assert order == sorted(order), sorted(zip(order, part, strict=True))


def test_every_file_of_the_page_is_as_it_says():
    for function, file in (step for part in PARTS for step in part):
        assert Path(code_of(function, file).co_filename) == ROOT / file
