"""The examples of the documentation run as they are printed."""

import runpy
from pathlib import Path

import pytest

import ofa

EXAMPLE = Path(__file__).parents[1] / "docs" / "examples" / "plain_cnn.py"


@pytest.mark.slow
def test_the_example_of_a_family_is_short_and_trains(capsys):
    assert len(EXAMPLE.read_text().splitlines()) < 60
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    accuracies = [float(line.split("%")[0]) for line in capsys.readouterr().out.splitlines()]
    assert len(accuracies) == 2
    assert min(accuracies) > 80


def test_a_recipe_may_name_the_example():
    family = ofa.create_family(str(EXAMPLE), num_classes=10, in_channels=3)
    assert family.space.size == 3 * 3 * (2 + 4 + 8)
