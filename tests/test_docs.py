"""What the documentation says of the code is so."""

import re
from pathlib import Path

import pytest

import ofa
from ofa.cost import macs_m, params_m

ROWS = re.findall(
    r"^\| `(\w+)` \| [^|]+ \| ([\d to]+) \| ([\d.e+]+) \| (.+) to (.+) \| (.+) to (.+) \|$",
    (Path(__file__).parents[1] / "docs" / "families.md").read_text(),
    re.MULTILINE,
)


def test_every_family_is_on_the_page():
    assert sorted(row[0] for row in ROWS) == ofa.family_names()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_the_numbers_of_families_are_those_of_the_code(row):
    name, pixels, archs, *numbers = row
    family = ofa.family(name)
    ends = family.space.rows([family.space.smallest, family.space.largest])
    assert pixels.split(" to ") == [str(pixels) for pixels in sorted({family.resolutions[0], family.resolutions[-1]})]
    assert float(archs) == pytest.approx(family.space.size, rel=0.005)
    for said, counted in zip(numbers, [*params_m(family)(ends), *macs_m(family)(ends)], strict=True):
        assert float(said) == pytest.approx(counted, rel=0.005)
