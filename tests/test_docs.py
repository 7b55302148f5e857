"""What the documentation says of the code is so."""

import re
from pathlib import Path

import pytest
import yaml

import ofa
from ofa.cost.counted import macs_m, params_m
from ofa.pipeline.recipe import Recipe

DOCS = Path(__file__).parents[1] / "docs"
ROWS = re.findall(
    r"^\| `(\w+)` \| [^|]+ \| ([\d to]+) \| ([\d.e+]+) \| (.+) to (.+) \| (.+) to (.+) \|$",
    (DOCS / "families.md").read_text(),
    re.MULTILINE,
)


def test_every_family_is_on_the_page():
    assert sorted(row[0] for row in ROWS) == ofa.list_families()


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[0])
def test_the_numbers_of_families_are_those_of_the_code(row):
    name, pixels, archs, *numbers = row
    family = ofa.create_family(name)
    ends = family.space.rows([family.space.smallest, family.space.largest])
    assert pixels.split(" to ") == [str(pixels) for pixels in sorted({family.resolutions[0], family.resolutions[-1]})]
    assert float(archs) == pytest.approx(family.space.size, rel=0.005)
    for said, counted in zip(numbers, [*params_m(family)(ends), *macs_m(family)(ends)], strict=True):
        assert float(said) == pytest.approx(counted, rel=0.005)


SNIPPETS = re.findall(r"```yaml\n(.*?)```", (DOCS / "training.md").read_text(), re.DOTALL)
INLINE = re.findall(r"`(\w+: \{[^`]*\})`", (DOCS / "training.md").read_text())


def test_training_settings_on_the_page_are_those_of_recipes():
    base = {"name": "x", "family": {"name": "hybrid_small"}, "data": {"name": "digits"}}
    phases = {"phases": [{"strategy": "sandwich", "epochs": 1}]}
    assert (len(SNIPPETS), len(INLINE)) == (4, 3)
    for text in [*SNIPPETS, *INLINE]:
        ((section, settings),) = yaml.safe_load(text).items()
        if section == "family":
            recipe = base | {"family": base["family"] | settings, "train": phases}
        elif section in Recipe.model_fields:
            recipe = base | {"train": phases} | {section: phases | settings if section == "train" else settings}
        else:
            recipe = base | {"train": phases | {section: settings}}
        Recipe.model_validate(recipe)


def _links(page):
    return [link for link in re.findall(r"\]\(([^)\s#]+)", page.read_text()) if "://" not in link]


@pytest.mark.parametrize("page", [*DOCS.parent.glob("*.md"), *DOCS.rglob("*.md")], ids=lambda page: page.name)
def test_links_lead_to_files_that_exist(page):
    assert [link for link in _links(page) if not (page.parent / link).exists()] == []


def test_the_index_of_results_has_every_page():
    results = DOCS / "results"
    assert {*_links(results / "README.md")} == {page.name for page in results.glob("*.md")} - {"README.md"}
